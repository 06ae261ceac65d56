"""Equations for other programs: source code, tables and graphs."""

from symtorch_core.exports.deployed import Deployed
from symtorch_core.exports.formats import FORMATS, export
from symtorch_core.exports.source import to_c, to_python
from symtorch_core.exports.tables import to_latex_table

__all__ = ["FORMATS", "Deployed", "export", "to_c", "to_latex_table", "to_python"]
