"""Starts: where an attack begins. The loop projects what a start returns, so a start need not clip."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..recipe import Norm
from .steps import unit

Start = Callable[[Tensor], Tensor]
"""`images [N, C, H, W] -> first iterate [N, C, H, W]`."""


def at_image(images: Tensor) -> Tensor:
    """The image itself."""
    return images


def uniform_in_ball(norm: Norm, *, epsilon: float, generator: torch.Generator) -> Start:
    """Uniform in the whole ball of radius epsilon around the image; an l_inf ball is a cube.

    The generator may be on another device than the images: a seed on the CPU gives one start for all devices.
    """
    sample = {"linf": _in_cube, "l2": _in_l2_ball}[norm]

    def start(images: Tensor) -> Tensor:
        return images + epsilon * sample(images, generator)

    return start


def gaussian(*, sigma: float, generator: torch.Generator) -> Start:
    """The image with Gaussian noise of this standard deviation on each pixel; devices as for `uniform_in_ball`."""

    def start(images: Tensor) -> Tensor:
        draw = torch.randn(images.shape, generator=generator, dtype=images.dtype, device=generator.device)
        return images + sigma * draw.to(images.device)

    return start


def _in_cube(images: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(images.shape, generator=generator, dtype=images.dtype, device=generator.device)
    return uniform.mul(2).sub(1).to(images.device)


def _in_l2_ball(images: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian has a uniform direction; a share r^d of the ball lies within radius r, so r = U^(1/d)."""
    dtype, device = images.dtype, generator.device
    gaussian = torch.randn(images.shape, generator=generator, dtype=dtype, device=device)
    uniform = torch.rand((len(images), 1, 1, 1), generator=generator, dtype=dtype, device=device)
    radius = uniform.pow(1 / images.shape[1:].numel())
    return unit(gaussian).mul(radius).to(images.device)
