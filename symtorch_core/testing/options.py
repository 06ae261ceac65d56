"""What every component with options must refuse."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from symtorch_core.components.options import Configurable
from symtorch_core.errors import SearchError


def check_options_refuse_wrong_types(component: Configurable) -> None:
    """Check that each option of a component refuses what its declaration rules out when the component is built.

    An option that is declared as ``str`` may be any text, and one that is declared as ``Any`` is not checked.
    """
    kind = type(component)
    for option in kind.option_names():
        default, annotation = kind._declare(option)
        declared = set(re.findall(r"\w+", annotation))
        if "Any" in declared:
            continue
        wrong: list[Any] = [object(), [object()], math.nan, math.inf]
        wrong += [] if "str" in declared else ["no such value"]
        wrong += [] if "bool" in declared else [True]
        wrong += [] if "None" in declared or default is None else [None]
        for value in wrong:
            try:
                kind.with_options({option: value})
            except SearchError:
                continue
            pytest.fail(f"{kind.name}'s {option} takes {value!r}, which its declaration rules out")
