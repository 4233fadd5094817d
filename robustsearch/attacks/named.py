"""Attacks of a given epsilon: uniform noise, FGSM, FGSM-RS, PGD and TRADES' own, in l_inf or l_2."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..recipe import Norm
from .gradient import Classifier
from .loop import Best, run
from .objectives import Objective, cross_entropy, divergence_from
from .projections import onto_ball
from .starts import Start, at_image, gaussian, uniform_in_ball
from .steps import steepest_ascent

FGSM_RS_STEP = 1.25
"""Step of FGSM-RS, in epsilons (Wong et al. 2020, section 4.1)."""

TRADES_START = 0.001
"""Standard deviation of TRADES' start, in pixel units of [0, 1] (published code; the paper has no figure)."""


@torch.no_grad()
def noise(images: Tensor, *, epsilon: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """Images `[N, C, H, W]` moved uniformly within the ball, then clipped to [0, 1]."""
    start = uniform_in_ball(norm, epsilon=epsilon, generator=generator)
    return onto_ball(norm, epsilon=epsilon)(start(images), images)


def fgsm(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    objective: Objective = cross_entropy,
    draws: int = 1,
    expand: bool = True,
) -> Tensor:
    """Fast gradient sign method (Goodfellow et al. 2014, 1412.6572, section 4): one step of length epsilon.

    In l_2 the step is along the normalised gradient. `draws` and `expand` are those of `input_gradient`.
    """
    return run(
        model,
        images,
        labels,
        start=at_image,
        step=steepest_ascent(norm, step=epsilon),
        project=onto_ball(norm, epsilon=epsilon),
        objective=objective,
        steps=1,
        draws=draws,
        expand=expand,
    )


def pgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step: float,
    steps: int,
    norm: Norm = "linf",
    objective: Objective = cross_entropy,
    draws: int = 1,
    expand: bool = True,
    random_start: bool = True,
    generator: torch.Generator | None = None,
    keep: Literal["last", "best"] = "last",
    allow_unreachable: bool = False,
) -> Tensor:
    """Projected gradient descent (Madry et al. 2017, 1706.06083, section 2.1).

    Args:
        model: from images to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`.
        epsilon: radius of the ball.
        step: length of one step, alpha in the paper.
        steps: steps to make.
        norm: norm of ball and step.
        objective: what is maximised.
        draws: predictions averaged in each gradient, see `input_gradient`.
        expand: whether these share one pass, see `input_gradient`.
        random_start: start uniformly in the ball rather than at the image.
        generator: source of the random start, needed for that alone.
        keep: the last iterate, or per image the one with the highest mean objective (one prediction more).
        allow_unreachable: accept steps that together are shorter than epsilon, as the report's are.

    Raises:
        ValueError: the steps cannot reach the surface of the ball, or a random start has no generator.
    """
    if steps * step < epsilon * (1 - 1e-6) and not allow_unreachable:
        raise ValueError(
            f"`steps * step >= epsilon` must hold, or PGD cannot reach its ball (`allow_unreachable=True` "
            f"accepts that), but got {steps} * {step:g} < {epsilon:g}"
        )
    start: Start = at_image
    if random_start:
        if generator is None:
            raise ValueError("`generator` must be given for a random start, but got None")
        start = uniform_in_ball(norm, epsilon=epsilon, generator=generator)
    best = Best(images)
    last = run(
        model,
        images,
        labels,
        start=start,
        step=steepest_ascent(norm, step=step),
        project=onto_ball(norm, epsilon=epsilon),
        objective=objective,
        steps=steps,
        draws=draws,
        expand=expand,
        observe=best.offer if keep == "best" else None,
    )
    return {"last": last, "best": best.images}[keep]


def fgsm_rs(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    objective: Objective = cross_entropy,
    draws: int = 1,
    expand: bool = True,
    generator: torch.Generator,
) -> Tensor:
    """FGSM from a random start (Wong et al. 2020, 2001.03994, algorithm 3): one step of 1.25 epsilon, projected.

    The published code crafts in training mode; whoever calls this decides on the mode. Parameters as for `pgd`.
    """
    return pgd(
        model,
        images,
        labels,
        epsilon=epsilon,
        step=FGSM_RS_STEP * epsilon,
        steps=1,
        norm=norm,
        objective=objective,
        draws=draws,
        expand=expand,
        generator=generator,
    )


def trades(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step: float,
    steps: int,
    norm: Norm = "linf",
    draws: int = 1,
    expand: bool = True,
    generator: torch.Generator,
) -> Tensor:
    """TRADES' inner maximisation (Zhang et al. 2019, 1901.08573, algorithm 1): PGD on KL(p(x) || p(x')).

    It starts at x + 0.001 N(0, 1), as KL has no gradient at x itself. p(x) is predicted once, which for a random
    network is one draw; the published code predicts it anew, to the same effect, in each step, and in l_2 moves by
    SGD rather than by `step` along the normalised gradient. Parameters as for `pgd`; the labels serve no end.
    """
    with torch.no_grad():
        reference = model(images)
    return run(
        model,
        images,
        labels,
        start=gaussian(sigma=TRADES_START, generator=generator),
        step=steepest_ascent(norm, step=step),
        project=onto_ball(norm, epsilon=epsilon),
        objective=divergence_from(reference),
        steps=steps,
        draws=draws,
        expand=expand,
    )
