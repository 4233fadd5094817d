"""The loop that every attack runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .gradient import Classifier, input_gradient, objective_values
from .objectives import Objective
from .projections import Projection
from .starts import Start
from .steps import Step

Observer = Callable[[Tensor, Tensor], None]
"""`(iterate [N, C, H, W], values [N])`: sees each iterate with its objective."""


@torch.no_grad()
def run(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    start: Start,
    step: Step,
    project: Projection,
    objective: Objective,
    steps: int,
    draws: int = 1,
    expand: bool = True,
    observe: Observer | None = None,
) -> Tensor:
    """The last iterate `[N, C, H, W]` of `steps` steps, each towards a higher objective and then projected.

    Args:
        model: from images to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`.
        start: the first iterate, which is projected too.
        step: the next iterate from the present one, its gradient and its values; may keep state.
        project: what keeps an iterate in the ball and in [0, 1].
        objective: what is maximised.
        steps: steps to make.
        draws: predictions over which objective and gradient are averaged, see `input_gradient`.
        expand: whether these share one pass, see `input_gradient`.
        observe: sees all `steps + 1` iterates, start and last included, which costs one prediction more.
    """
    iterate = project(start(images), images)
    for _ in range(steps):
        gradient, values = input_gradient(model, iterate, labels, objective, draws=draws, expand=expand)
        if observe is not None:
            observe(iterate, values)
        finite = gradient.nan_to_num(nan=0, posinf=0, neginf=0)  # what is not finite shows no direction
        iterate = project(step(iterate, finite, values), images)
    if observe is not None:
        observe(iterate, objective_values(model, iterate, labels, objective, draws=draws, expand=expand))
    return iterate


class Best:
    """Per image the iterate with the highest score seen; the image itself while none scored above -inf."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.detach()
        self.score = images.new_full((len(images),), -torch.inf)

    def offer(self, iterate: Tensor, score: Tensor) -> None:
        """Keep those iterates `[N, C, H, W]` that score `[N]` higher than what is kept; NaN never does."""
        higher = score > self.score
        self.images = torch.where(higher[:, None, None, None], iterate, self.images)
        self.score = torch.where(higher, score, self.score)
