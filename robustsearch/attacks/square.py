"""Square attack (Andriushchenko et al. 2019, 1912.00049): random search by squares; it never asks for a gradient.

Each query proposes one change of the best image so far, in a random square, and keeps it if the margin has grown.
The squares shrink as the queries are spent. Every proposal lies on the surface of the ball, then is clipped to [0, 1].

Since it sees predictions alone, it should not fare better against a network than the best gradient attack: where it
does, the gradients are masked. The loop is its own, as that of `loop.py` begins with a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..recipe import Norm
from .gradient import Classifier, objective_values
from .loop import Best
from .objectives import margin
from .projections import clip, onto_ball
from .steps import unit

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries out of 10,000 after which the share of pixels in a square is halved in the published code."""


@torch.no_grad()
def square(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    queries: int = 5000,
    share: float = 0.8,
    draws: int = 1,
    expand: bool = True,
    generator: torch.Generator,
) -> Tensor:
    """Per image the proposal with the highest mean margin.

    Args:
        model: from images to logits; any prediction without a gradient will do.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`.
        epsilon: radius of the ball.
        norm: norm of the ball.
        queries: mean margins to ask for, the first proposal's included; each costs `draws` predictions.
        share: of the pixels in the first squares, p in the paper; in (0, 1].
        draws: predictions over which the margin is averaged. A lucky draw of a random model stays the best.
        expand: whether these share one pass, see `input_gradient`.
        generator: source of all squares; may be on another device than the images.
    """
    first, propose, smallest = _RULES[norm]
    images, project = images.detach(), onto_ball(norm, epsilon=epsilon)
    best = Best(images)
    candidate = images + epsilon * first(images, generator)
    for query in range(queries):
        if query:
            side = _side(share * _schedule(query, queries), images, smallest)
            candidate = propose(best.images, images, epsilon, side, generator)
        candidate = project(candidate, images)
        best.offer(candidate, objective_values(model, candidate, labels, margin, draws=draws, expand=expand))
    return best.images


def _schedule(query: int, queries: int) -> float:
    """Factor of the share at this query, with the paper's schedule stretched or shrunk to so many queries."""
    return math.ldexp(1.0, -sum(10_000 * query > halving * queries for halving in HALVINGS))


def _side(share: float, images: Tensor, smallest: int) -> int:
    """Side of a square with this share of the pixels, at least the smallest and within the images."""
    height, width = images.shape[2:]
    return min(max(round(math.sqrt(share * height * width)), smallest), height, width)


# l_inf


def _stripes(images: Tensor, generator: torch.Generator) -> Tensor:
    """Vertical stripes of -1 and +1, each channel its own."""
    n, channels, _, width = images.shape
    return _signs((n, channels, 1, width), images, generator)


def _repaint(best: Tensor, images: Tensor, epsilon: float, side: int, generator: torch.Generator) -> Tensor:
    """One square at +epsilon or -epsilon, each channel at its own (algorithm 2).

    A square that would change nothing has its signs turned; the published code draws again until something changes.
    """
    inside, _, _ = _squares(images, side, generator)
    offset = epsilon * _signs((*images.shape[:2], 1, 1), images, generator)
    idle = ((clip(images + offset, images) == best) | ~inside).all((1, 2, 3), keepdim=True)
    return torch.where(inside, images + torch.where(idle, -offset, offset), best)


# l_2


def _tiles(images: Tensor, generator: torch.Generator) -> Tensor:
    """Length 1: five by five bumps, each with its own sign in each channel."""
    n, channels, height, width = images.shape
    side = max(min(height, width) // 5, 1)
    rows, columns = -(-height // side), -(-width // side)
    signs = _signs((n, channels, rows, columns), images, generator)
    signs = signs.repeat_interleave(side, 2).repeat_interleave(side, 3)
    tiles = signs * _bump(side).to(images).repeat(rows, columns)
    return unit(tiles[:, :, :height, :width])


def _move(best: Tensor, images: Tensor, epsilon: float, side: int, generator: torch.Generator) -> Tensor:
    """Length moved from one square into a bump in another, of the same side (algorithm 3)."""
    n, channels = images.shape[:2]
    into, rows, columns = _squares(images, side, generator)
    out_of, _, _ = _squares(images, side, generator)
    offset = best - images
    unused = (epsilon**2 - _length(offset, (1, 2, 3)) ** 2).clamp(min=0)
    available = (_length(offset * (into | out_of), (2, 3)) ** 2 + unused / channels).sqrt()
    bump = _bump(side).to(images)
    turned = _integers(2, (n, 1, 1), images, generator)
    bumps = torch.stack([bump, bump.T])[turned, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
    signs = _signs((n, channels, 1, 1), images, generator)
    mixed = _direction(into * (signs * bumps + _direction(into * offset)))
    moved = torch.where(into, available * mixed, torch.where(out_of, 0, offset))
    return images + epsilon * unit(moved)  # at its length already, but where a bump cancelled what was there


def _bump(side: int) -> Tensor:
    """Two bumps of opposite sign, one above the other, `[side, side]` of length 1 (eta in the paper)."""
    above, below = _half_bump(side // 2, side), _half_bump(side - side // 2, side)
    bump = torch.cat([above, -below])
    return bump / _length(bump, (0, 1))


def _half_bump(height: int, width: int) -> Tensor:
    """Pixels at distance m from the middle, in whole squares around it, have sum_{j > m} 1 / j^2; of length 1."""
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    squares = torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** -2
    heights = squares.flip(0).cumsum(0).flip(0)
    bump = heights[torch.maximum(rows[:, None], columns)]
    return bump / _length(bump, (0, 1)).clamp(min=1)  # a bump without rows has no length


def _direction(planes: Tensor) -> Tensor:
    """Each channel of `[N, C, H, W]` at length 1; zero stays zero."""
    length = _length(planes, (2, 3))
    return planes / length.where(length > 0, 1)


def _length(values: Tensor, dim: tuple[int, ...]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    return length


# Random numbers, drawn on the generator's device


def _squares(images: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """One square in each image, uniform over the places within it.

    Returns its pixels `[N, 1, H, W]`, and for each row `[N, H]` and column `[N, W]` of the image that of the square,
    the nearest one where it lies outside.
    """
    n, _, height, width = images.shape
    rows, columns = (
        torch.arange(length, device=images.device) - _integers(length - side + 1, (n, 1), images, generator)
        for length in (height, width)
    )
    row_inside, column_inside = ((line >= 0) & (line < side) for line in (rows, columns))
    inside = (row_inside[:, :, None] & column_inside[:, None, :]).unsqueeze(1)
    return inside, rows.clamp(0, side - 1), columns.clamp(0, side - 1)


def _integers(high: int, shape: tuple[int, ...], images: Tensor, generator: torch.Generator) -> Tensor:
    """0 to high - 1, uniformly."""
    return torch.randint(high, shape, generator=generator, device=generator.device).to(images.device)


def _signs(shape: tuple[int, ...], images: Tensor, generator: torch.Generator) -> Tensor:
    """-1 or 1, in the images' dtype."""
    return (2 * _integers(2, shape, images, generator) - 1).to(images.dtype)


_Proposal = Callable[[Tensor, Tensor, float, int, torch.Generator], Tensor]
"""`(best, images, epsilon, side, generator) -> candidate [N, C, H, W]`, before projection."""

_RULES: dict[Norm, tuple[Callable[[Tensor, torch.Generator], Tensor], _Proposal, int]] = {
    "linf": (_stripes, _repaint, 1),
    "l2": (_tiles, _move, 3),
}
"""First offset at epsilon 1, proposal, and smallest square."""
