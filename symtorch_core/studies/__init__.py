"""Studies: experiments that a user starts by name (``symtorch run NAME``), and what they are built from."""

from symtorch_core.storage.files import written_whole
from symtorch_core.studies.study import Claim, Drawing, Study, StudyReport, finished, setting
from symtorch_core.training.schedule import learning_rate, seeded
from symtorch_core.views.page import front_part
from symtorch_core.views.page_parts import Bars, Equation, Figure, Page, Part, Section, Table, Text
from symtorch_core.views.plots import new_axes

__all__ = [
    "Bars",
    "Claim",
    "Drawing",
    "Equation",
    "Figure",
    "Page",
    "Part",
    "Section",
    "Study",
    "StudyReport",
    "Table",
    "Text",
    "finished",
    "front_part",
    "learning_rate",
    "new_axes",
    "seeded",
    "setting",
    "written_whole",
]
