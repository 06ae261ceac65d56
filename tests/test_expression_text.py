"""Text to tree and back."""

from __future__ import annotations

import contextlib
import math
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from symtorch_core.errors import ExpressionError
from symtorch_core.expressions import (
    ALIASES,
    OPERATORS,
    Call,
    Constant,
    Expression,
    Variable,
    constants,
    depth,
    parse,
    substitute,
    to_text,
    variables,
    with_constants,
)
from symtorch_core.testing.strategies import expressions

X, Y, Z = map(Variable, "xyz")
ONE, TWO = Constant(1), Constant(2)


@given(expressions(names=("x", "x_1", "sin", "e", "pi", "größe"), max_leaves=25))
def test_what_is_printed_reads_back_to_the_same_tree(expression: Expression) -> None:
    assert parse(str(expression), ["x", "x_1", "sin", "e", "pi", "größe"]) == expression


@settings(max_examples=300)
@given(expressions(operators=("+", "-", "*", "/", "^", "neg"), numbers=st.sampled_from([2.0, -2.0, 0.5])))
def test_brackets_stand_wherever_they_are_needed(expression: Expression) -> None:
    assert parse(str(expression)) == expression


@example(Call("^", Variable("x"), Constant(9.5)), 1)
@given(expressions(numbers=st.floats(-1e6, 1e6)), st.integers(1, 8))
def test_text_for_people_reads_back_to_what_prints_the_same(expression: Expression, digits: int) -> None:
    text = to_text(expression, digits)
    assert to_text(parse(text), digits) == text


def test_people_read_powers_and_quotients() -> None:
    assert to_text(parse("2.34567*square(x + 1) - inv(cube(y)*x)"), 3) == "2.35*(x + 1)^2 - 1/(y^3*x)"
    assert str(parse("square(x)")) == "square(x)"


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_can_be_written_as_a_function_or_sign(name: str) -> None:
    call = Call(name, *(X, Y, Z)[: OPERATORS[name].arity])
    assert parse(str(call)) == call


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("1 + 2*x", Call("+", ONE, Call("*", TWO, X))),
        ("x - y - z", Call("-", Call("-", X, Y), Z)),
        ("x - (y - z)", Call("-", X, Call("-", Y, Z))),
        ("x/y/z", Call("/", Call("/", X, Y), Z)),
        ("x/y*z", Call("*", Call("/", X, Y), Z)),
        ("x^y^z", Call("^", X, Call("^", Y, Z))),
        ("-x^2", Call("neg", Call("^", X, TWO))),
        ("(-x)^2", Call("^", Call("neg", X), TWO)),
        ("x^-2", Call("^", X, Constant(-2))),
        ("x**2", Call("^", X, TWO)),
        ("2*-x", Call("*", TWO, Call("neg", X))),
        ("--x", Call("neg", Call("neg", X))),
        ("+x", X),
        ("-3", Constant(-3)),
        ("x - -3", Call("-", X, Constant(-3))),
        ("1e-3", Constant(1e-3)),
        ("2.E5", Constant(2e5)),
        (".5", Constant(0.5)),
        ("x + 1 > y*2", Call("greater", Call("+", X, ONE), Call("*", Y, TWO))),
        ("x <= y", Call("less_equal", X, Y)),
        ("max(x, y, z)", Call("max", Call("max", X, Y), Z)),
        ("fma(x, y, z)", Call("+", Call("*", X, Y), Z)),
        ("ln(x)", Call("log", X)),
        ("pi", Constant(math.pi)),
        ("-pi*x", Call("*", Constant(-math.pi), X)),
        (" x\n+\ty ", Call("+", X, Y)),
    ],
)
def test_precedence(text: str, tree: Expression) -> None:
    assert parse(text) == tree


def test_pi_is_a_variable_where_it_is_named() -> None:
    assert parse("pi", ["pi"]) == Variable("pi")
    assert parse("-pi", ["pi"]) == Call("neg", Variable("pi"))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("(x + y)*z", "(x + y)*z"),
        ("x*(y*z)", "x*(y*z)"),
        ("x + (y + z)", "x + (y + z)"),
        ("x - (-3)", "x - (-3.0)"),
        ("(x*y)^2", "(x*y)^2"),
        ("x^(y + 1)", "x^(y + 1.0)"),
        ("x^0.5", "x^0.5"),
        ("-(x + y)", "-(x + y)"),
        ("-(x*y)", "-(x*y)"),
        ("(-x)*y", "-x*y"),
    ],
)
def test_as_few_brackets_as_needed(text: str, printed: str) -> None:
    assert str(parse(text)) == printed


def test_digits_round_the_constants_and_never_the_exponents() -> None:
    assert to_text(parse("3.14159*x^123456 + 1e-9"), digits=3) == "3.14*x^123456 + 1e-09"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sine(x)", "unknown operator 'sine'. Did you mean 'sin'.*Known operators: .*cos"),
        ("sin(x, y)", "'sin' takes 1 argument.*got 2"),
        ("atan2(x)", "'atan2' takes 2 argument.*got 1"),
        ("max(x)", "'max' takes 2 argument"),
        ("1e400", "cannot hold the constant inf"),
        ("x +", "cannot read 'x .'"),
        ("x y", "character 3"),
        ("(x", "check signs and brackets"),
        ("", "cannot read ''"),
        ("x²", "cannot name a variable"),
        ("x < y < z", "cannot read"),
        ("sin", r"unknown variable 'sin'.*Known variables: speed, x"),
        ("sped*x", "unknown variable 'sped'. Did you mean 'speed'. Known variables: speed, x"),
    ],
)
def test_errors_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        parse(text, ["x", "speed", "y", "z"] if "nown variable" not in message else ["x", "speed"])


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {}')",
        "open('{}', 'w')",
        "eval(x)",
        "x.__class__",
        "[x for x in (1,)]",
        "(lambda: 0)()",
        "x; y",
        "f'{x}'",
        "x\0y",
    ],
)
def test_code_is_refused_and_not_run(text: str, tmp_path) -> None:
    target = tmp_path / "touched"
    with pytest.raises(ExpressionError):
        parse(text.replace("{}", str(target)))
    assert not target.exists()


def test_too_long_or_too_deep() -> None:
    with pytest.raises(ExpressionError, match="too long"):
        parse("1+" * 60_000 + "1")
    with pytest.raises(ExpressionError, match="levels deep"):
        parse("sin(" * 5_000 + "x" + ")" * 5_000)
    with pytest.raises(ExpressionError, match="levels deep"):
        parse("-" * 50_000 + "x")
    assert depth(parse("sin(" * 150 + "x" + ")" * 150)) == 151


def test_garbage_is_refused_quickly() -> None:
    start = time.perf_counter()
    with pytest.raises(ExpressionError):
        parse("(" * 99_000)
    assert time.perf_counter() - start < 5


@given(st.text(max_size=30))
def test_any_text_is_an_expression_or_an_expression_error(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        assert isinstance(parse(text), Expression)


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_name_rows_of_the_table(alias: str) -> None:
    operator = OPERATORS[ALIASES[alias]]
    assert Call(alias, *(X, Y)[: operator.arity]).operator == operator.name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_constant_is_finite(value: float) -> None:
    with pytest.raises(ExpressionError, match="use finite numbers"):
        Constant(value)


@pytest.mark.parametrize("name", ["", "1x", "x.y", "x y", "x-1"])
def test_a_variable_is_an_identifier(name: str) -> None:
    with pytest.raises(ExpressionError, match="cannot name a variable"):
        Variable(name)


def test_constants_leave_whole_exponents_out() -> None:
    expression = parse("2*x^3 + 4*x^0.5 + 5^2")
    assert constants(expression) == (2.0, 4.0, 0.5, 5.0)
    changed = with_constants(expression, [20, 40, 0.25, 50])
    assert changed == parse("20*x^3 + 40*x^0.25 + 50^2")


def test_with_constants_needs_one_value_for_each() -> None:
    with pytest.raises(ExpressionError, match="has 2 constants, got 1"):
        with_constants(parse("2*x + 3"), [1.0])


def test_an_exponent_beyond_every_integer_type_is_a_number() -> None:
    assert constants(parse("x^1e300")) == (1e300,)


def test_substitute_and_variables() -> None:
    expression = substitute(parse("a*b + a"), {"a": parse("x + 1")})
    assert expression == parse("(x + 1)*b + (x + 1)")
    assert variables(expression) == ("x", "b")
