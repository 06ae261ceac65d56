"""Random leaves, operators, small pieces and trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.programs.postfix import Programs, clear_values, splice
from symtorch_torchgp.programs.primitives import CONSTANT, NOTHING, Primitives

_POOL_GROWTH = 8


@final
@dataclass(frozen=True)
class Sampler:
    """Draws leaves, operators, small pieces and places from one generator.

    Attributes:
        primitives: the code table.
        length: places of a program.
        generator, device: of all draws.
        levels: values of the inputs, shape (n,), from which thresholds are drawn; None if there are no thresholds.
    """

    primitives: Primitives
    length: int
    generator: torch.Generator
    device: torch.device
    levels: Tensor | None = None

    def draw_uniform(self, *shape: int) -> Tensor:
        """Draw numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def draw_normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def draw_below(self, limit: Tensor) -> Tensor:
        """Draw a whole number from 0 to each limit - 1."""
        return (self.draw_uniform(*limit.shape) * limit).long().clamp_max(limit - 1)

    def pick(self, choices: Tensor, count: int) -> Tensor:
        """Draw ``count`` of the choices, with repetition."""
        return choices[torch.randint(len(choices), (count,), generator=self.generator, device=self.device)]

    def make_variables(self) -> Programs:
        """Return every variable as a program."""
        count = len(self.primitives.variables)
        codes = torch.zeros(count, self.length, dtype=torch.long, device=self.device)
        codes[:, 0] = torch.arange(2, 2 + count, device=self.device)
        return Programs(codes, torch.zeros(count, self.length, device=self.device))

    def draw_leaves(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw codes and values of leaves: a quarter of them constants, the others variables."""
        variables = torch.arange(2, self.primitives.first_operator, device=self.device)
        codes = self.pick(variables, count)
        constant = self.draw_uniform(count) < 0.25
        whole = self.pick(torch.tensor([1.0, 1.0, 1.0, 2.0, -1.0], device=self.device), count)
        values = torch.where(self.draw_uniform(count) < 0.5, whole, 2.0 * self.draw_normal(count))
        if self.levels is not None:  # a threshold of one variable, or of a sum of two
            second = torch.where(self.draw_uniform(count) < 0.5, self.pick(self.levels, count), 0.0)
            values = torch.where(
                self.draw_uniform(count) < 0.5, values, self.pick(self.levels, count) + second
            )
        values = torch.where(constant, values, 0.0)
        return torch.where(constant, CONSTANT, codes), values

    def draw_pieces(self, count: int) -> Programs:
        """Draw pieces that can follow a subtree: a unary operator, or a leaf and a binary operator."""
        codes = torch.zeros(count, self.length, dtype=torch.long, device=self.device)
        values = torch.zeros(count, self.length, device=self.device)
        unary, binary = self.primitives.select_codes(1), self.primitives.select_codes(2)
        leaf, value = self.draw_leaves(count)
        # In proportion to the operators of each kind, so that all operators are about equally likely.
        share = len(unary) / max(1, len(unary) + 2 * len(binary))
        is_unary = (
            self.draw_uniform(count) < share
            if len(binary)
            else torch.ones(count, dtype=torch.bool, device=self.device)
        )
        if len(binary):
            codes[:, 0], codes[:, 1], values[:, 0] = leaf, self.pick(binary, count), value
        if len(unary):
            codes[is_unary, 0], values[is_unary, 0] = self.pick(unary, count)[is_unary], 0.0
            codes[is_unary, 1] = NOTHING
        return Programs(codes, clear_values(Programs(codes, values)).values)

    def draw_trees(self, count: int, growth: int = _POOL_GROWTH) -> Programs:
        """Draw programs of up to about ``2 * growth + 1`` places."""
        codes = torch.zeros(count, self.length, dtype=torch.long, device=self.device)
        values = torch.zeros(count, self.length, device=self.device)
        codes[:, 0], values[:, 0] = self.draw_leaves(count)
        trees = Programs(codes, values)
        rounds = (self.draw_uniform(count) * (growth + 1)).long()
        for step in range(growth):
            place = self.draw_below(trees.size) + 1
            piece = self.draw_pieces(count)
            inserted = torch.where(rounds > step, piece.size, 0)
            zero = torch.zeros_like(place)
            trees = splice(trees, place, zero, piece, zero, inserted)
        return trees
