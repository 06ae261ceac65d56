"""Equations for other programs: source code, tables, graphs."""

from symtorch_core.exports.deployed import Deployed
from symtorch_core.exports.formats import FORMATS, export
from symtorch_core.exports.source import c_source, python_source
from symtorch_core.exports.tables import latex_table

__all__ = ["FORMATS", "Deployed", "c_source", "export", "latex_table", "python_source"]
