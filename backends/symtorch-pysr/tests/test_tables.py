"""Halls of fame as SymbolicRegression.jl writes them, whole and cut short."""

from __future__ import annotations

from pathlib import Path

from symtorch_core.expressions import parse
from symtorch_pysr.search.tables import Row, name_table, read_table, rename_variables, translate_rows

WHOLE = 'Complexity,Loss,Equation\n1,2.5,"x1"\n5,1.0f-3,"(x0 * 2.5) + max(x1, x0)"\n9,3.0e-9,"cos(x0)"\n'


def test_a_table_is_read_with_commas_in_equations_and_julias_numbers(tmp_path: Path) -> None:
    path = tmp_path / "hall_of_fame.csv"
    path.write_text(WHOLE)
    assert read_table(path) == [
        Row(1, 2.5, "x1"),
        Row(5, 1e-3, "(x0 * 2.5) + max(x1, x0)"),
        Row(9, 3e-9, "cos(x0)"),
    ]


def test_a_copy_that_was_cut_short_gives_way_to_the_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "hall_of_fame.csv"
    path.with_name("hall_of_fame.csv.bak").write_text(WHOLE)
    for end in range(len(WHOLE)):
        path.write_text(WHOLE[:end])
        assert len(read_table(path)) == 3
    path.with_name("hall_of_fame.csv.bak").unlink()
    path.write_text(WHOLE[:-6])
    assert len(read_table(path)) == 2  # without "cos(x0
    path.unlink()
    assert read_table(path) == []


def test_a_line_whose_figures_cannot_be_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "hall_of_fame.csv"
    path.write_text(WHOLE + '0,0.0,"x0"\n1e999,0.0,"x0"\n3,NaN,"x0"\n3,Inf,"x0"\n-3,0.0,"x0"\n')
    assert [row.complexity for row in read_table(path)] == [1, 5, 9]


def test_the_files_of_several_outputs_are_numbered_from_one() -> None:
    assert name_table(0, 1) == "hall_of_fame.csv"
    assert [name_table(i, 2) for i in range(2)] == ["hall_of_fame_output1.csv", "hall_of_fame_output2.csv"]


def test_names_are_exchanged_all_at_once() -> None:
    rows = [Row(3, 0.0, "x0 - sin(x1)")]
    (expression,), _ = translate_rows(rows, ["x1", "x0"], [])
    assert expression == parse("x1 - sin(x0)")
    assert rename_variables("x0 - sin(x1) + x10", ["x1", "x0"]) == "x1 - sin(x0) + x10"
