"""Accuracy of a network under attack, measured so that randomness cannot hide it (docs/honesty.md).

An adversary sees each stochastic layer's surrogate gradient, never hard gates. What it finds is scored on the network
itself, over fresh draws: the correctness of an image is its mean over those draws, and its robust correctness is the
worst over the attacks of one norm. CW is a minimum-norm l_2 attack: it counts within the l_2 budget.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacks.gradient import crafting
from ..models.build import Network
from ..models.stochastic import is_random
from ..recipe import Norm
from ..seeds import derive
from .intervals import wilson
from .methods import METHODS, applies, craft
from .protocols import Protocol

BATCH = 100
"""Images a pass; bounds the memory of an evaluation, and how long it keeps others from having the device alone."""


@dataclass
class Correctness:
    """Per image `[N]`, float64: the share of fresh draws on which the prediction is right; and CW's l_2 norms."""

    by_column: dict[str, Tensor]
    worst: dict[Norm, Tensor]
    """Worst over the attacks of a norm, and over none at all."""
    cw_norm: Tensor
    """l_2 norm of each CW perturbation; NaN where it failed or had nothing to do."""
    attacked: int = 0
    """Images that were attacked, over all adversaries."""
    offered: int = 0
    """Images that would have been without dropping broken ones."""


def correctness(network: Network, images: Tensor, labels: Tensor, *, draws: int, predictions: int) -> Tensor:
    """Share of `predictions` fresh predictions, each averaged over `draws`, that are right; `[N]`, float64."""
    if not is_random(network):
        predictions = 1
    hits = [network.predict(images, draws).argmax(1) == labels for _ in range(predictions)]
    return torch.stack(hits).double().mean(0)


def attacked(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    protocol: Protocol,
    radii: dict[Norm, float],
    draws: int,
    generator: torch.Generator,
) -> Correctness:
    """Correctness of one batch under every adversary: images `[N, C, H, W]` in [0, 1], labels `[N]`."""
    predictions = protocol.scoring_draws(draws)

    def score(pictures: Tensor, targets: Tensor) -> Tensor:
        with crafting(network):
            return correctness(network, pictures, targets, draws=draws, predictions=predictions)

    natural = score(images, labels)
    found = Correctness({"natural": natural}, dict.fromkeys(radii, natural), torch.full_like(natural, torch.nan))
    for adversary in protocol.adversaries:
        if not applies(adversary, network):
            continue
        worst = found.worst[adversary.norm]
        alive = (worst > 0 if protocol.drop_broken else torch.ones_like(worst, dtype=torch.bool)).nonzero().squeeze(1)
        found.attacked, found.offered = found.attacked + len(alive), found.offered + len(images)
        pictures, targets = images[alive], labels[alive]
        candidate = craft(
            adversary,
            network,
            pictures,
            targets,
            epsilon=radii[adversary.norm],
            gradient_draws=protocol.gradient_draws,
            generator=generator,
        )
        if METHODS[adversary.method].minimum_norm:
            norm = (candidate - pictures).flatten(1).norm(dim=1)
            attackable = natural[alive] > 0  # an image that is wrong already has no least perturbation
            found.cw_norm[alive] = torch.where(attackable & (norm > 0), norm, torch.nan).double()
            candidate = torch.where((norm <= radii["l2"])[:, None, None, None], candidate, pictures)
        scores = score(candidate, targets)
        worst = worst.clone()
        worst[alive] = torch.minimum(worst[alive], scores)
        found.worst[adversary.norm] = worst
        found.by_column[adversary.column] = worst if protocol.drop_broken else scores
    return found


def evaluate(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    protocol: Protocol,
    epsilon: float,
    epsilon_l2: float,
    draws: int,
    seed: int,
    turn: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, float | int | None]:
    """The accuracy columns of a results row, for images `[N, C, H, W]` in [0, 1] and labels `[N]`.

    The attack's randomness derives from `seed`, the network's own draws from its `noise`. Each batch runs inside a
    `turn()` of its own.
    """
    radii: dict[Norm, float] = {"linf": protocol.epsilon or epsilon, "l2": epsilon_l2}
    generator = torch.Generator(images.device).manual_seed(derive(seed, "evaluation"))
    parts = []
    for start in range(0, len(images), BATCH):
        batch = slice(start, start + BATCH)
        with turn():
            parts.append(
                attacked(
                    network,
                    images[batch],
                    labels[batch],
                    protocol=protocol,
                    radii=radii,
                    draws=draws,
                    generator=generator,
                )
            )
    row: dict[str, float | int | None] = {}
    for name in parts[0].by_column:
        row |= accuracy(name, torch.cat([part.by_column[name] for part in parts]))
    row |= accuracy("robust", torch.cat([part.worst["linf"] for part in parts]))
    row |= accuracy("robust_l2", torch.cat([part.worst["l2"] for part in parts]))
    norms = torch.cat([part.cw_norm for part in parts])
    norms = norms[~norms.isnan()]
    return row | {
        "n": len(images),
        "scoring_draws": protocol.scoring_draws(draws) if is_random(network) else 1,
        "cw_norm": float(norms.median()) if len(norms) else None,
        "attacked": sum(part.attacked for part in parts) / sum(part.offered for part in parts),
        "epsilon": radii["linf"],
        "epsilon_l2": radii["l2"],
    }


def accuracy(name: str, correct: Tensor) -> dict[str, float]:
    """Columns NAME, NAME_low and NAME_high from correctness `[N]` in [0, 1]."""
    mean = float(correct.mean())
    low, high = wilson(mean, len(correct))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
