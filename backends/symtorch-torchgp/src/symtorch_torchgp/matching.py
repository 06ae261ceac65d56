"""Children by matching: cut a subtree out of a program, and find by matrix products what belongs into the hole.

To first order, a program with n in its hole is h + J n, where J is the derivative by the hole. For every hole and every
subtree g of a library, the fit of the best a + b (h + J n), with n made of g and of what was in the hole before, has a
closed form in sums over rows of products of something of the hole with something of g, so a few matrix products judge
all pairs. J is exact where the hole is a summand, a factor or a numerator all the way up; elsewhere the child is tried
like any other. At the root this finds the best sum and the best product of two known programs. The idea of asking a
library for what a place needs is that of semantic backpropagation (Pawlak, Wieloch and Krawiec 2015); derivatives and
matrix products make it fit any operator and hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.evaluation import chunks, derivatives, evaluate, schedule, values_of
from symtorch_torchgp.fitting import Rows
from symtorch_torchgp.inverses import Inside, wrapped
from symtorch_torchgp.primitives import CONSTANT, Primitives
from symtorch_torchgp.programs import Programs, append, cut, splice, subtree_start
from symtorch_torchgp.variation import Sampler

_INVERTED = 0.3
_INSIDE = 0.5
"""Share of the holes that are whole programs, matched to targets inside an operator."""
_HOLES_AT_ONCE = 128
_RESOLUTION = 1e-5
_LARGEST = 1e12
_LARGEST_FACTOR = 1e6


@final
@dataclass(frozen=True)
class _Library:
    """Subtrees that may go into holes: n different ones.

    Attributes:
        programs: n programs.
        values: shape (n, rows), finite.
        complexity: shape (n,).
    """

    programs: Programs
    values: Tensor
    complexity: Tensor

    @classmethod
    def of(cls, programs: Programs, values: Tensor, primitives: Primitives) -> _Library:
        """From programs and their values: the usable ones, without repetitions."""
        usable = (torch.isfinite(values).all(1) & (values.abs().amax(1) < _LARGEST)).nonzero()[:, 0]
        order = usable[programs[usable].complexity(primitives).argsort(stable=True)]
        # Equal values, equal projection on some direction: the simplest of them stays.
        direction = torch.linspace(1, 2, values.shape[1], device=values.device, dtype=torch.float64).sin()
        _, group = torch.unique(values[order].double() @ direction, return_inverse=True)
        position = torch.arange(len(group), device=values.device)
        simplest = torch.full_like(group, len(group)).scatter_reduce(0, group, position, "amin")
        kept = order[simplest[simplest < len(group)].sort().values]
        return cls(programs[kept], values[kept], programs[kept].complexity(primitives))


@final
@dataclass(frozen=True)
class _Holes:
    """Programs with a subtree cut out.

    Attributes:
        programs: m whole programs.
        inner: what was there, as programs.
        inside: its value v, shape (m, rows).
        slope: derivative J of the program by the hole, shape (m, rows).
        whole: value f of the program, shape (m, rows).
    """

    programs: Programs
    inner: Programs
    inside: Tensor
    slope: Tensor
    whole: Tensor

    @classmethod
    def of(
        cls,
        programs: Programs,
        start: Tensor,
        inner: Programs,
        inside: Tensor,
        primitives: Primitives,
        columns: Tensor,
    ) -> _Holes:
        """Cut the subtrees ``inner``, which begin at ``start`` and have the values ``inside``, out of programs."""
        # The hole is a constant with a value of its own on every row.
        filler = Programs(torch.full_like(programs.codes, CONSTANT), torch.zeros_like(programs.values))
        zero, one = torch.zeros_like(start), torch.ones_like(start)
        holed = splice(programs, start, inner.size, filler, zero, one)
        places = torch.arange(programs.codes.shape[1], device=start.device)
        plan = schedule(holed, primitives, places == start[:, None])
        buffer = evaluate(plan, primitives, columns, inside)
        slope = derivatives(plan, primitives, buffer)
        return cls(programs, inner, inside, slope, buffer.index_select(0, plan.roots))

    def __getitem__(self, part: slice) -> _Holes:
        return _Holes(
            self.programs[part], self.inner[part], self.inside[part], self.slope[part], self.whole[part]
        )


@final
@dataclass(frozen=True)
class _Form:
    """What goes into a hole that held v: g, or v joined with g by an operator; g may have a factor."""

    join: str | None
    scaled: bool


def matched(
    parents: Programs,
    outputs: Tensor,
    subtrees: Programs,
    sampler: Sampler,
    rows: Rows,
    known: list[Inside],
    maxsize: int,
    *,
    each: int,
    at_root: float,
) -> Programs:
    """The ``each`` most promising children of each parent, one hole a parent; shape (m * each, length).

    Every hole draws the largest complexity its children may have, so that simple ones are made, too. Where there are
    not enough promising children, the parent itself stands in.

    Args:
        parents: m programs.
        outputs: output of each, shape (m,).
        subtrees: what may go into the holes; the variables always may.
        sampler: where chance comes from.
        rows: the data.
        known: the targets inside operators; some of the holes that are whole programs are matched to these.
        maxsize: largest complexity.
        each: children of each parent.
        at_root: share of parents whose hole is the whole program: their children are it, joined with something.
    """
    primitives = sampler.primitives
    last = torch.where(sampler.uniform(len(parents)) < at_root, parents.size - 1, sampler.below(parents.size))
    start = subtree_start(parents, last, primitives)
    inner = cut(parents, start, last)
    subtrees = Programs.cat([sampler.variables(), subtrees])
    values = values_of(Programs.cat([inner, subtrees]), primitives, rows.columns)
    holes = _Holes.of(parents, start, inner, values[: len(inner)], primitives, rows.columns)
    library = _Library.of(subtrees, values[len(inner) :], primitives)
    room = 3 + (sampler.uniform(len(parents)) * (maxsize - 2)).long()
    inside = _assigned(last == parents.size - 1, outputs, known, sampler)
    forms, entry, factor, found = _best(holes, library, primitives, outputs, rows, known, inside, room, each)
    of_hole = torch.arange(len(parents), device=entry.device).repeat_interleave(each)
    form, subtree = entry // len(library.programs), library.programs[entry % len(library.programs)]
    pieces = _pieces(inner[of_hole], subtree, forms, form, factor, primitives)
    found &= pieces.size > 0
    for number, seen in enumerate(known):
        chosen = (found & (inside[of_hole] == number)).nonzero()[:, 0]
        values = values_of(pieces[chosen], primitives, rows.columns)
        new, good = wrapped(pieces[chosen], values, seen, outputs[of_hole[chosen]], primitives)
        pieces.codes[chosen], pieces.values[chosen], found[chosen] = new.codes, new.values, good
    whole, zero = parents[of_hole], torch.zeros_like(entry)
    filled = splice(whole, start[of_hole], inner.size[of_hole], pieces, zero, pieces.size)
    return Programs(
        torch.where(found[:, None], filled.codes, whole.codes),
        torch.where(found[:, None], filled.values, whole.values),
    )


def _best(
    holes: _Holes,
    library: _Library,
    primitives: Primitives,
    outputs: Tensor,
    rows: Rows,
    known: list[Inside],
    inside: Tensor,
    room: Tensor,
    each: int,
) -> tuple[list[_Form], Tensor, Tensor, Tensor]:
    """The best entries of the library for each hole.

    Returns:
        The forms; and for ``each`` children of each hole, hole by hole: form and subtree as one number
        (form * n + subtree), the factor of the subtree, and whether there is such a child.
    """
    target, weight = rows.targets[outputs], rows.weights[outputs]
    for number, seen in enumerate(known):
        of_it = (inside == number).nonzero()[:, 0]
        target[of_it], weight[of_it] = seen.rows.targets[outputs[of_it]], seen.rows.weights[outputs[of_it]]
    entries, factors, found = [], [], []
    for part in chunks(len(outputs), _HOLES_AT_ONCE):
        forms, loss, factor = _judged(
            holes[part], library, primitives, target[part], weight[part], room[part]
        )
        best = loss.topk(min(each, loss.shape[1]), largest=False)
        # A library of fewer entries gives some of them twice.
        again = torch.arange(each, device=loss.device) % best.indices.shape[1]
        entries.append(best.indices[:, again])
        factors.append(factor.gather(1, entries[-1]))
        found.append(torch.isfinite(best.values[:, again]))
    return forms, torch.cat(entries).flatten(), torch.cat(factors).flatten(), torch.cat(found).flatten()


def _assigned(at_root: Tensor, outputs: Tensor, known: list[Inside], sampler: Sampler) -> Tensor:
    """Which of the known insides each hole is matched to, shape (m,); -1 for none."""
    none = torch.full_like(outputs, -1)
    if not known:
        return none
    drawn = sampler.below(torch.full_like(outputs, len(known)))
    possible = torch.stack([seen.possible for seen in known])[drawn, outputs]
    return torch.where(at_root & possible & (sampler.uniform(len(outputs)) < _INSIDE), drawn, none)


def random_subtrees(programs: Programs, sampler: Sampler) -> Programs:
    """A random subtree of each program, some of them inverted where a search can only divide by ``inv``."""
    primitives = sampler.primitives
    last = sampler.below(programs.size)
    subtrees = cut(programs, subtree_start(programs, last, primitives), last)
    if "inv" in primitives.operators and "/" not in primitives.operators:
        inverted = sampler.uniform(len(subtrees)) < _INVERTED
        subtrees = append(subtrees, inverted, primitives.code_of("inv"))
    return subtrees


def _judged(
    holes: _Holes, library: _Library, primitives: Primitives, target: Tensor, weight: Tensor, room: Tensor
) -> tuple[list[_Form], Tensor, Tensor]:
    """Predicted 1 - R2 of every hole with every form of every subtree, and the factor of the subtree.

    Args:
        holes: m holes.
        library: n subtrees.
        primitives: the code table.
        target: shape (m, rows).
        weight: shape (m, rows).
        room: largest complexity of a child, shape (m,).

    Returns:
        f forms; losses and factors of shape (m, f * n), form by form.
    """
    rest = holes.whole - holes.slope * holes.inside
    inner = holes.inner.complexity(primitives)
    outer = holes.programs.complexity(primitives) - inner
    finite = torch.isfinite(holes.whole).all(1) & torch.isfinite(rest).all(1)
    forms: list[_Form] = []
    losses, factors = [], []

    def judge(join: str | None, slope: Tensor, other: Tensor, values: Tensor) -> None:
        sums = _Sums.of(slope, other, values, target, weight)
        size = (outer + (0 if join is None else inner + primitives.cost_of(join)))[
            :, None
        ] + library.complexity
        sign = -1.0 if join == "-" else 1.0
        fits = (size <= room[:, None]) & finite[:, None]
        forms.append(_Form(join, False))
        losses.append(torch.where(fits, sums.loss_with(sign), torch.inf))
        factors.append(torch.full_like(losses[-1], sign))
        if join != "-" and "*" in primitives.operators:
            loss, factor = sums.best()
            fits &= size + primitives.cost_of("*") + primitives.complexity[CONSTANT] <= room[:, None]
            forms.append(_Form(join, True))
            losses.append(torch.where(fits, loss, torch.inf))
            factors.append(factor)

    judge(None, holes.slope, rest, library.values)
    for join, slope, other in (
        ("+", holes.slope, holes.whole),
        ("-", holes.slope, holes.whole),
        ("*", holes.slope * holes.inside, rest),
    ):
        if join in primitives.operators:
            judge(join, slope, other, library.values)
    if "/" in primitives.operators:
        judge("/", holes.slope * holes.inside, rest, library.values.reciprocal())
    return forms, torch.cat(losses, 1), torch.cat(factors, 1)


@final
@dataclass(frozen=True)
class _Sums:
    """Second moments over rows of z + beta q g for m holes (z, q) and n subtrees g, all centred.

    Attributes:
        zz: of z with itself, shape (m, 1).
        zy: of z with the target, shape (m, 1).
        gg: of q g with itself, shape (m, n).
        gz: of q g with z, shape (m, n).
        gy: of q g with the target, shape (m, n).
        scale: mean square of q g, against which rounding is judged, shape (m, n).
    """

    zz: Tensor
    zy: Tensor
    gg: Tensor
    gz: Tensor
    gy: Tensor
    scale: Tensor

    @classmethod
    def of(cls, q: Tensor, z: Tensor, g: Tensor, target: Tensor, weight: Tensor) -> _Sums:
        """From q, z, target and weight of shape (m, rows) and g of shape (n, rows)."""
        z = z - (weight * z).sum(1, keepdim=True)
        weighted = weight * q
        mean, gz, gy = (torch.cat([weighted, weighted * z, weighted * target]) @ g.T).chunk(3)
        scale = (weighted * q) @ g.square().T
        return cls(
            (weight * z.square()).sum(1, keepdim=True),
            (weight * z * target).sum(1, keepdim=True),
            scale - mean.square(),
            gz,
            gy,
            scale,
        )

    def loss_with(self, factor: float) -> Tensor:
        """1 - R2 of a + b (z + factor q g)."""
        spread = self.zz + factor**2 * self.gg + 2 * factor * self.gz
        loss = 1 - (self.zy + factor * self.gy).square() / spread
        good = (spread > _RESOLUTION * (self.zz + self.scale)) & (self.gg > _RESOLUTION * self.scale)
        return torch.where(good & torch.isfinite(loss), loss, torch.inf)

    def best(self) -> tuple[Tensor, Tensor]:
        """1 - R2 of a + b (z + beta q g) with the best beta, and that beta."""
        zz = self.zz.clamp_min(torch.finfo(self.zz.dtype).tiny)
        gg = self.gg - self.gz.square() / zz
        gy = self.gy - self.gz * self.zy / zz
        of_g = gy / gg
        of_z = (self.zy - of_g * self.gz) / zz
        loss, factor = 1 - self.zy.square() / zz - gy * of_g, of_g / of_z
        size = factor.abs()
        good = (gg > _RESOLUTION * self.scale) & (size < _LARGEST_FACTOR) & (size > 1 / _LARGEST_FACTOR)
        return torch.where(good & torch.isfinite(loss), loss, torch.inf), factor


def _pieces(
    inner: Programs,
    subtree: Programs,
    forms: list[_Form],
    form: Tensor,
    factor: Tensor,
    primitives: Primitives,
) -> Programs:
    """What goes into the holes, as programs; empty where it is too long."""

    def has(condition: list[bool]) -> Tensor:
        return torch.tensor(condition, device=form.device)[form]

    length, zero = subtree.codes.shape[1], torch.zeros_like(form)
    is_scaled, is_joined = has([f.scaled for f in forms]), has([f.join is not None for f in forms])
    total = subtree.size + 2 * is_scaled + is_joined * (inner.size + 1)
    pieces = subtree
    if bool(is_scaled.any()):
        pieces = append(pieces, is_scaled, CONSTANT, factor)
        pieces = append(pieces, is_scaled, primitives.code_of("*"))
    pieces = splice(pieces, zero, zero, inner, zero, torch.where(is_joined, inner.size, 0))
    for join in {f.join for f in forms if f.join is not None}:
        pieces = append(pieces, has([f.join == join for f in forms]), primitives.code_of(join))
    return Programs(torch.where((total <= length)[:, None], pieces.codes, 0), pieces.values)
