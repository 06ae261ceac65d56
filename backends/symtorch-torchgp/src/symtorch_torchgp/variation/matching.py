"""Children by matching: a subtree is cut out of a program, and matrix products find what fits best into the hole.

To first order, a program with n in its hole is h + J n, where J is the derivative by the hole. Let n be built from a
subtree g of a library and from the subtree that was in the hole before. Then the best fit a + b (h + J n) has a closed
form in sums over rows of products of a factor of the hole and a factor of g, so a few matrix products rate all pairs of
holes and subtrees. The first order is exact if the hole is a summand, a factor or a numerator all the way up; otherwise
the child is tried like any other. At the root this finds the best sum and the best product of two known programs. To
search a library for what a place needs is the idea of semantic backpropagation (Pawlak, Wieloch and Krawiec 2015); with
derivatives and matrix products it works for any operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.evaluation.evaluator import compute_values, split_range
from symtorch_torchgp.programs.postfix import Programs, append, cut, find_subtree_start, splice
from symtorch_torchgp.programs.primitives import CONSTANT, Primitives
from symtorch_torchgp.variation.holes import Holes, Library
from symtorch_torchgp.variation.inverses import InnerTargets, wrap_pieces
from symtorch_torchgp.variation.moments import Sums
from symtorch_torchgp.variation.sampler import Sampler

_INSIDE = 0.5
"""Share of the holes at the root that are matched to inner targets."""
_HOLES_AT_ONCE = 128


@final
@dataclass(frozen=True)
class _Form:
    """The filling of a hole that held v: g, or v joined with g by an operator; g may have a factor."""

    join: str | None
    scaled: bool


def match_subtrees(
    parents: Programs,
    outputs: Tensor,
    subtrees: Programs,
    sampler: Sampler,
    rows: Rows,
    known: list[InnerTargets],
    maxsize: int,
    *,
    each: int,
    at_root: float,
) -> Programs:
    """Return the ``each`` most promising children of each parent, from one hole per parent.

    For every hole, the largest complexity of its children is drawn at random, so that there are simple ones, too. If
    there are not enough promising children, the parent takes their place.

    Args:
        parents: m programs.
        outputs: output of each parent, shape (m,).
        subtrees: programs that may fill the holes; variables are added to them.
        sampler: source of all random choices.
        rows: the rows.
        known: inner targets, to which some of the holes at the root are matched.
        maxsize: the largest complexity.
        each: number of children of each parent.
        at_root: share of parents whose hole is the whole program; their children join it with a subtree.

    Returns:
        m * each programs, parent by parent.
    """
    primitives = sampler.primitives
    last = torch.where(
        sampler.draw_uniform(len(parents)) < at_root, parents.size - 1, sampler.draw_below(parents.size)
    )
    start = find_subtree_start(parents, last, primitives)
    inner = cut(parents, start, last)
    subtrees = Programs.cat([sampler.make_variables(), subtrees])
    values = compute_values(Programs.cat([inner, subtrees]), primitives, rows.columns)
    holes = Holes.of(parents, start, inner, values[: len(inner)], primitives, rows.columns)
    library = Library.of(subtrees, values[len(inner) :], primitives)
    room = 3 + (sampler.draw_uniform(len(parents)) * (maxsize - 2)).long()
    inside = _assign_inner_targets(last == parents.size - 1, outputs, known, sampler)
    forms, entry, factor, found = _select_best(
        holes, library, primitives, outputs, rows, known, inside, room, each
    )
    of_hole = torch.arange(len(parents), device=entry.device).repeat_interleave(each)
    form, subtree = entry // len(library.programs), library.programs[entry % len(library.programs)]
    pieces = _build_pieces(inner[of_hole], subtree, forms, form, factor, primitives)
    found &= pieces.size > 0
    for number, seen in enumerate(known):
        chosen = (found & (inside[of_hole] == number)).nonzero()[:, 0]
        values = compute_values(pieces[chosen], primitives, rows.columns)
        new, good = wrap_pieces(pieces[chosen], values, seen, outputs[of_hole[chosen]], primitives)
        pieces.codes[chosen], pieces.values[chosen], found[chosen] = new.codes, new.values, good
    whole, zero = parents[of_hole], torch.zeros_like(entry)
    filled = splice(whole, start[of_hole], inner.size[of_hole], pieces, zero, pieces.size)
    return Programs(
        torch.where(found[:, None], filled.codes, whole.codes),
        torch.where(found[:, None], filled.values, whole.values),
    )


def _select_best(
    holes: Holes,
    library: Library,
    primitives: Primitives,
    outputs: Tensor,
    rows: Rows,
    known: list[InnerTargets],
    inside: Tensor,
    room: Tensor,
    each: int,
) -> tuple[list[_Form], Tensor, Tensor, Tensor]:
    """Return the best entries of the library for each hole.

    Returns:
        The forms; and for ``each`` children of each hole, hole by hole, shape (m * each,): form and subtree as one
        number (form * n + subtree), the factor of the subtree, and whether there is such a child.
    """
    target, weight = rows.targets[outputs], rows.weights[outputs]
    for number, seen in enumerate(known):
        of_it = (inside == number).nonzero()[:, 0]
        target[of_it], weight[of_it] = seen.rows.targets[outputs[of_it]], seen.rows.weights[outputs[of_it]]
    entries, factors, found = [], [], []
    for part in split_range(len(outputs), _HOLES_AT_ONCE):
        forms, loss, factor = _predict_losses(
            holes[part], library, primitives, target[part], weight[part], room[part]
        )
        best = loss.topk(min(each, loss.shape[1]), largest=False)
        # If the library has fewer entries, some are used twice.
        again = torch.arange(each, device=loss.device) % best.indices.shape[1]
        entries.append(best.indices[:, again])
        factors.append(factor.gather(1, entries[-1]))
        found.append(torch.isfinite(best.values[:, again]))
    return forms, torch.cat(entries).flatten(), torch.cat(factors).flatten(), torch.cat(found).flatten()


def _assign_inner_targets(
    at_root: Tensor, outputs: Tensor, known: list[InnerTargets], sampler: Sampler
) -> Tensor:
    """Return the number of the inner targets to which each hole is matched, shape (m,); -1 for none."""
    none = torch.full_like(outputs, -1)
    if not known:
        return none
    drawn = sampler.draw_below(torch.full_like(outputs, len(known)))
    possible = torch.stack([seen.possible for seen in known])[drawn, outputs]
    return torch.where(at_root & possible & (sampler.draw_uniform(len(outputs)) < _INSIDE), drawn, none)


def _predict_losses(
    holes: Holes, library: Library, primitives: Primitives, target: Tensor, weight: Tensor, room: Tensor
) -> tuple[list[_Form], Tensor, Tensor]:
    """Return the predicted 1 - R2 of every hole with every form of every subtree, and the factor of the subtree.

    Args:
        holes: m holes.
        library: n subtrees.
        primitives: the code table.
        target: targets, shape (m, rows).
        weight: weights, shape (m, rows).
        room: the largest complexity of a child, shape (m,).

    Returns:
        f forms; losses and factors, shape (m, f * n), form by form.
    """
    rest = holes.whole - holes.slope * holes.inside
    inner = holes.inner.compute_complexity(primitives)
    outer = holes.programs.compute_complexity(primitives) - inner
    finite = torch.isfinite(holes.whole).all(1) & torch.isfinite(rest).all(1)
    forms: list[_Form] = []
    losses, factors = [], []

    def rate(join: str | None, slope: Tensor, other: Tensor, values: Tensor) -> None:
        sums = Sums.of(slope, other, values, target, weight)
        size = (outer + (0 if join is None else inner + primitives.get_complexity(join)))[
            :, None
        ] + library.complexity
        sign = -1.0 if join == "-" else 1.0
        fits = (size <= room[:, None]) & finite[:, None]
        forms.append(_Form(join, False))
        losses.append(torch.where(fits, sums.compute_loss(sign), torch.inf))
        factors.append(torch.full_like(losses[-1], sign))
        if join != "-" and "*" in primitives.operators:
            loss, factor = sums.compute_best_loss()
            fits &= size + primitives.get_complexity("*") + primitives.complexity[CONSTANT] <= room[:, None]
            forms.append(_Form(join, True))
            losses.append(torch.where(fits, loss, torch.inf))
            factors.append(factor)

    rate(None, holes.slope, rest, library.values)
    for join, slope, other in (
        ("+", holes.slope, holes.whole),
        ("-", holes.slope, holes.whole),
        ("*", holes.slope * holes.inside, rest),
    ):
        if join in primitives.operators:
            rate(join, slope, other, library.values)
    if "/" in primitives.operators:
        rate("/", holes.slope * holes.inside, rest, library.values.reciprocal())
    return forms, torch.cat(losses, 1), torch.cat(factors, 1)


def _build_pieces(
    inner: Programs,
    subtree: Programs,
    forms: list[_Form],
    form: Tensor,
    factor: Tensor,
    primitives: Primitives,
) -> Programs:
    """Return the programs that fill the holes; empty where they are too long."""

    def has(condition: list[bool]) -> Tensor:
        return torch.tensor(condition, device=form.device)[form]

    length, zero = subtree.codes.shape[1], torch.zeros_like(form)
    is_scaled, is_joined = has([f.scaled for f in forms]), has([f.join is not None for f in forms])
    total = subtree.size + 2 * is_scaled + is_joined * (inner.size + 1)
    pieces = subtree
    if bool(is_scaled.any()):
        pieces = append(pieces, is_scaled, CONSTANT, factor)
        pieces = append(pieces, is_scaled, primitives.get_code("*"))
    pieces = splice(pieces, zero, zero, inner, zero, torch.where(is_joined, inner.size, 0))
    for join in {f.join for f in forms if f.join is not None}:
        pieces = append(pieces, has([f.join == join for f in forms]), primitives.get_code(join))
    return Programs(torch.where((total <= length)[:, None], pieces.codes, 0), pieces.values)
