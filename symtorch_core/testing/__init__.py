"""Contract suites: the tests that a plugin of each kind must pass (needs pytest).

Subclass a contract, define its fixture, and run pytest.
"""

from symtorch_core.testing.captures import CaptureContract
from symtorch_core.testing.command import run_command
from symtorch_core.testing.reducers import ReducerContract
from symtorch_core.testing.regressors import RegressorContract
from symtorch_core.testing.scripted import ScriptedRegressor
from symtorch_core.testing.studies import StudyContract
from symtorch_core.testing.surrogates import SurrogateContract

__all__ = [
    "CaptureContract",
    "ReducerContract",
    "RegressorContract",
    "ScriptedRegressor",
    "StudyContract",
    "SurrogateContract",
    "run_command",
]
