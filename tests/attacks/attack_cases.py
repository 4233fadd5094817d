"""What tests of several attacks share."""

from __future__ import annotations

import torch
from torch import Tensor

from robustsearch.recipe import Norm

NORMS: tuple[Norm, ...] = ("linf", "l2")


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def lengths(vectors: Tensor, norm: Norm) -> Tensor:
    """Norm of each of the vectors `[N, C, H, W]`, in float64."""
    rows = vectors.double().flatten(1)
    return rows.abs().amax(1) if norm == "linf" else rows.square().sum(1).sqrt()
