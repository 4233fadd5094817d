"""How each attack of a protocol is called: an attack more is an entry more in `METHODS`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..attacks.apgd import apgd, apgd_targeted
from ..attacks.carlini_wagner import cw, cw_search
from ..attacks.gradient import crafting
from ..attacks.named import fgsm, pgd
from ..attacks.objectives import LEAST_CLASSES_DLR, LEAST_CLASSES_TARGETED, Objective, cross_entropy, dlr, margin
from ..attacks.square import square
from ..models.build import Network
from ..models.stochastic import expandable, is_hard, is_random, mean_network, straight_through, surrogate
from .protocols import Adversary

OBJECTIVES: dict[str, Objective] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}
THROUGH: dict[str, Callable[[Network], AbstractContextManager[object]]] = {
    "surrogate": surrogate,
    "mean": mean_network,
    "network": nullcontext,
    "straight": straight_through,
}


@dataclass(frozen=True)
class Call:
    """What a method is given."""

    adversary: Adversary
    network: Network
    images: Tensor
    """`[N, C, H, W]` in [0, 1]."""
    labels: Tensor
    """`[N]`."""
    epsilon: float
    """Radius in the adversary's norm, pixel units of [0, 1]."""
    draws: int
    """Predictions averaged in each gradient."""
    expand: bool
    """Whether these share one pass."""
    generator: torch.Generator
    """Where all randomness of the attack comes from."""

    @property
    def objective(self) -> Objective:
        """What is maximised."""
        return OBJECTIVES[self.adversary.objective]

    def of(self, attack: Callable[..., Tensor], **options: Any) -> Tensor:
        """What an attack makes of these images, with what all attacks take and its own options."""
        return attack(self.network, self.images, self.labels, draws=self.draws, expand=self.expand, **options)

    def within(self, attack: Callable[..., Tensor], **options: Any) -> Tensor:
        """The same of an attack that keeps to the ball."""
        return self.of(attack, epsilon=self.epsilon, norm=self.adversary.norm, **options)


@dataclass(frozen=True)
class Method:
    """One way to attack."""

    call: Callable[[Call], Tensor]
    """To adversarial images `[N, C, H, W]` in [0, 1]."""
    least_classes: int = 2
    """Classes without which it means nothing."""
    black_box: bool = False
    """Sees predictions only, so it asks the network itself, whatever the adversary differentiates."""
    minimum_norm: bool = False
    """Keeps to no ball: its result counts where it is within the budget."""


def craft(
    adversary: Adversary,
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    gradient_draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Adversarial images `[N, C, H, W]` of one adversary; `epsilon` is the radius in its norm."""
    method = METHODS[adversary.method]
    through = "network" if method.black_box else adversary.through
    with crafting(network), THROUGH[through](network):
        draws = adversary.draws or gradient_draws if is_random(network) else 1
        return method.call(Call(adversary, network, images, labels, epsilon, draws, expandable(network), generator))


def applies(adversary: Adversary, network: Network) -> bool:
    """Whether an attack means anything for this network: a logit ratio needs its classes, some attacks hard gates."""
    if adversary.hard_only and not is_hard(network):
        return False
    least = LEAST_CLASSES_DLR if adversary.objective == "dlr" else 2
    return class_count(network) >= max(least, METHODS[adversary.method].least_classes)


def class_count(network: Network) -> int:
    """Classes that a network tells apart."""
    return network.body.linear.out_features


def _fgsm(call: Call) -> Tensor:
    return call.within(fgsm)


def _pgd(call: Call) -> Tensor:
    adversary = call.adversary
    return call.within(
        pgd,
        step=adversary.step or 2.5 * call.epsilon / adversary.steps,
        steps=adversary.steps,
        objective=call.objective,
        generator=call.generator,
        allow_unreachable=adversary.step is not None,
    )


def _apgd(call: Call) -> Tensor:
    return call.within(apgd, steps=call.adversary.steps, objective=call.objective, generator=call.generator)


def _apgd_targeted(call: Call) -> Tensor:
    classes = class_count(call.network)
    return call.within(apgd_targeted, classes=classes, steps=call.adversary.steps, generator=call.generator)


def _cw(call: Call) -> Tensor:
    adversary = call.adversary
    options = {"kappa": adversary.kappa, "steps": adversary.steps, "lr": adversary.lr}
    if adversary.searches > 1:
        return call.of(cw_search, searches=adversary.searches, c_start=adversary.c, **options)
    return call.of(cw, c=adversary.c, **options)


def _square(call: Call) -> Tensor:
    return call.within(square, queries=call.adversary.steps, generator=call.generator)


METHODS = {
    "fgsm": Method(_fgsm),
    "pgd": Method(_pgd),
    "apgd": Method(_apgd),
    "apgd_targeted": Method(_apgd_targeted, least_classes=LEAST_CLASSES_TARGETED),
    "square": Method(_square, black_box=True),
    "cw": Method(_cw, minimum_norm=True),
}
