"""Equations of any size that a file may hold: every view, export and rewriting of them ends soon, and is not large."""

from __future__ import annotations

import torch

X = torch.rand(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
