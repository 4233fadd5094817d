"""Accuracy of a network under attack, measured so that randomness cannot hide it (METHODS 7).

An adversary sees each stochastic layer's surrogate gradient, never hard gates. What it finds is scored on the network
itself, over fresh draws: the correctness of an image is its mean over those draws, and its robust correctness is the
worst over the l_inf attacks. CW is an l_2 attack and stands beside them, at its own budget.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacks.carlini_wagner import cw
from ..attacks.gradient import crafting
from ..attacks.named import fgsm, pgd
from ..models.build import Network
from ..models.stochastic import expandable, is_random, surrogate
from ..seeds import derive
from .intervals import wilson
from .protocols import Protocol

BATCH = 100
"""Images a pass; bounds the memory of an evaluation, and how long it keeps others from having the device alone."""


@dataclass(frozen=True)
class Correctness:
    """Per image `[N]`: the share of fresh draws on which the prediction is right, by attack; and CW's l_2 norms."""

    by_attack: dict[str, Tensor]
    cw_norm: Tensor
    """l_2 norm of each CW perturbation `[N]`; NaN where it failed or had nothing to do."""

    @property
    def robust(self) -> Tensor:
        """Worst correctness over the l_inf attacks and no attack at all, per image `[N]`."""
        return torch.stack([self.by_attack[name] for name in ("natural", "fgsm", "pgd")]).amin(0)


def correctness(network: Network, images: Tensor, labels: Tensor, *, draws: int, predictions: int) -> Tensor:
    """Share of `predictions` fresh predictions, each averaged over `draws`, that are right; `[N]` in [0, 1]."""
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
    epsilon: float,
    epsilon_l2: float,
    draws: int,
    generator: torch.Generator,
) -> Correctness:
    """Correctness of one batch under every attack: images `[N, C, H, W]` in [0, 1], labels `[N]`."""
    predictions = protocol.scoring_draws(draws)
    with crafting(network), surrogate(network):
        gradient_draws, expand = (protocol.gradient_draws if is_random(network) else 1), expandable(network)
        candidates = {
            "natural": images,
            "fgsm": fgsm(network, images, labels, epsilon=epsilon, draws=gradient_draws, expand=expand),
            "pgd": pgd(
                network,
                images,
                labels,
                epsilon=epsilon,
                step=protocol.pgd_step or 2.5 * epsilon / protocol.pgd_steps,
                steps=protocol.pgd_steps,
                draws=gradient_draws,
                expand=expand,
                generator=generator,
                allow_unreachable=protocol.pgd_step is not None,
            ),
            "cw": cw(
                network,
                images,
                labels,
                c=protocol.cw_c,
                kappa=protocol.cw_kappa,
                steps=protocol.cw_steps,
                lr=protocol.cw_lr,
                draws=gradient_draws,
                expand=expand,
            ),
        }
    # A minimum-norm attack has an accuracy only at a budget: what lies beyond it counts as not attacked.
    norm = (candidates["cw"] - images).flatten(1).norm(dim=1)
    within = (norm <= epsilon_l2)[:, None, None, None]
    candidates["cw"] = torch.where(within, candidates["cw"], images)
    with crafting(network):
        scores = {
            name: correctness(network, candidate, labels, draws=draws, predictions=predictions)
            for name, candidate in candidates.items()
        }
    attackable = scores["natural"] > 0  # an image that is wrong already has no least perturbation
    return Correctness(scores, torch.where(attackable & (norm > 0), norm, torch.nan))


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
    epsilon = protocol.epsilon or epsilon
    generator = torch.Generator(images.device).manual_seed(derive(seed, "evaluation"))
    parts = []
    for start in range(0, len(images), BATCH):
        batch = slice(start, start + BATCH)
        with turn():
            part = attacked(
                network,
                images[batch],
                labels[batch],
                protocol=protocol,
                epsilon=epsilon,
                epsilon_l2=epsilon_l2,
                draws=draws,
                generator=generator,
            )
        parts.append(part)
    row: dict[str, float | int | None] = {}
    for name in parts[0].by_attack:
        row |= accuracy(name, torch.cat([part.by_attack[name] for part in parts]))
    row |= accuracy("robust", torch.cat([part.robust for part in parts]))
    norms = torch.cat([part.cw_norm for part in parts])
    norms = norms[~norms.isnan()]
    return row | {
        "n": len(images),
        "scoring_draws": protocol.scoring_draws(draws) if is_random(network) else 1,
        "cw_norm": float(norms.median()) if len(norms) else None,
        "epsilon": epsilon,
        "epsilon_l2": epsilon_l2,
    }


def accuracy(name: str, correct: Tensor) -> dict[str, float]:
    """Columns NAME, NAME_low and NAME_high from correctness `[N]` in [0, 1]."""
    mean = float(correct.mean())
    low, high = wilson(mean, len(correct))
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
