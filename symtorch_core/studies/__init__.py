"""Studies, experiments that a user starts by name (``symtorch run NAME``), and the parts they are built from."""

from symtorch_core.components.escaping import escape_plot
from symtorch_core.storage.files import write_whole
from symtorch_core.storage.store import Store, make_key
from symtorch_core.studies.report import Chapter, Claim, Drawing, build_footer
from symtorch_core.studies.study import Study, StudyReport, require_finished, setting
from symtorch_core.training.checkpoint import Checkpoint
from symtorch_core.training.descend import Descent, descend
from symtorch_core.training.relative import RelativeAdam
from symtorch_core.training.schedule import compute_learning_rate, fork_seed
from symtorch_core.views.figures import render_svg
from symtorch_core.views.page_fronts import build_front_part
from symtorch_core.views.page_parts import Bars, Equation, Figure, Page, Part, Section, Table, Text
from symtorch_core.views.plots import new_axes

__all__ = [
    "Bars",
    "Chapter",
    "Checkpoint",
    "Claim",
    "Descent",
    "Drawing",
    "Equation",
    "Figure",
    "Page",
    "Part",
    "RelativeAdam",
    "Section",
    "Store",
    "Study",
    "StudyReport",
    "Table",
    "Text",
    "build_footer",
    "build_front_part",
    "compute_learning_rate",
    "descend",
    "escape_plot",
    "fork_seed",
    "make_key",
    "new_axes",
    "render_svg",
    "require_finished",
    "setting",
    "write_whole",
]
