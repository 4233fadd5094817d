"""Projections: where an iterate must stay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..recipe import Norm

Projection = Callable[[Tensor, Tensor], Tensor]
"""`(iterate [N, C, H, W], images [N, C, H, W]) -> allowed iterate [N, C, H, W]`."""


def clip(iterate: Tensor, images: Tensor) -> Tensor:
    """The nearest image with pixels in [0, 1]."""
    return iterate.clamp(0, 1)


def onto_ball(norm: Norm, *, epsilon: float) -> Projection:
    """The nearest point of the ball of radius epsilon around the image, then clipped to [0, 1].

    Clipping brings every pixel nearer to the image, itself in [0, 1], so the result is still in the ball.
    """
    nearest = {"linf": _onto_cube, "l2": _onto_l2_ball}[norm]

    def project(iterate: Tensor, images: Tensor) -> Tensor:
        return clip(nearest(iterate, images, epsilon), images)

    return project


def _onto_cube(iterate: Tensor, images: Tensor, epsilon: float) -> Tensor:
    return iterate.clamp(images - epsilon, images + epsilon)


def _onto_l2_ball(iterate: Tensor, images: Tensor, epsilon: float) -> Tensor:
    offset = iterate - images
    length = torch.linalg.vector_norm(offset, dim=(1, 2, 3), keepdim=True)
    return torch.where(length > epsilon, images + offset * (epsilon / length), iterate)
