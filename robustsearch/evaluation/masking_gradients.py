"""What a subject's gradients are worth: whether there are any, whether they are slopes, whether draws agree on them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attacks.gradient import input_gradient, objective_values
from ..attacks.objectives import cross_entropy, margin
from .replay import restore
from .subject import BATCH, Subject


def dead(subject: Subject, images: Tensor, labels: Tensor, *, draws: int) -> Tensor:
    """Whether the gradient of the cross-entropy is exactly zero, or not finite, for each image `[N]`."""
    found = []
    with subject.attacked():
        for x, y in zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True):
            gradient, _ = input_gradient(subject.model, x, y, cross_entropy, draws=draws, expand=False)
            gradient = gradient.flatten(1)
            found.append((gradient == 0).all(1) | ~gradient.isfinite().all(1))
    return torch.cat(found)


def slope_correlation(
    subject: Subject, images: Tensor, labels: Tensor, *, epsilon: float, generator: torch.Generator
) -> float | None:
    """Correlation of gradient and central differences of the margin, along random signs and over the same draws.

    The differences reach epsilon / 4 to each side of random points of the ball: gradients that are right only for
    smaller moves show an attack no way. None where the draws of a pass cannot be repeated.
    """
    h = epsilon / 4

    def uniform() -> Tensor:
        drawn = torch.rand(images.shape, generator=generator, dtype=images.dtype, device=generator.device)
        return drawn.to(images.device)

    centre = (images + epsilon * (2 * uniform() - 1)).clamp(h, 1 - h)
    slopes, differences = [], []
    with subject.attacked():
        if not subject.repeatable(centre):
            return None
        for _ in range(8):
            signs = (uniform() - 0.5).sign()
            state = subject.generators.state()
            gradient, _ = input_gradient(subject.model, centre, labels, margin)
            restore(state)
            above = objective_values(subject.model, centre + h * signs, labels, margin)
            restore(state)
            below = objective_values(subject.model, centre - h * signs, labels, margin)
            slopes.append((gradient * signs).flatten(1).sum(1))
            differences.append((above - below) / (2 * h))
    return _correlation(torch.cat(slopes), torch.cat(differences))


def cosine_between_draws(subject: Subject, images: Tensor, labels: Tensor) -> float:
    """Cosine of the plain gradients of two draws, mean over images; 0 for a zero gradient."""
    with subject.plain():
        first, second = (input_gradient(subject.model, images, labels, margin)[0].flatten(1) for _ in range(2))
    return float(F.cosine_similarity(first, second).nan_to_num().mean())


def _correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation; 0 where one of them is constant or not finite."""
    pair = torch.stack([first, second]).double()
    pair = pair - pair.mean(1, keepdim=True)
    correlation = pair[0] @ pair[1] / pair.norm(dim=1).prod()
    return float(correlation.nan_to_num(0.0))
