"""The attacks of a masking audit, on one subject at one epsilon: each a function `(images, labels) -> images`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..attacks.apgd import apgd, apgd_targeted
from ..attacks.gradient import Classifier, objective_values
from ..attacks.named import fgsm, noise, pgd
from ..attacks.objectives import LEAST_CLASSES_TARGETED, Objective, cross_entropy, margin
from ..attacks.square import square
from .subject import Attack, Subject


@dataclass(frozen=True)
class Effort:
    """What the attacks may cost. Draws are taken where there is something random, else one."""

    steps: int = 40
    """Steps of the examined attack, with each objective."""
    long_steps: int = 160
    """Steps of the one that must not do better."""
    restarts: int = 3
    """Further starts that must not do better."""
    short_steps: int = 20
    """Steps of the naive attack, and of each radius in the sweep over epsilon."""
    draws: int = 8
    """Draws averaged in a gradient: its signs then agree with those of 256 draws in 9 of 10 pixels."""
    more_draws: int = 32
    """Draws that must not do better."""
    queries: int = 500
    """Queries of Square for an image."""
    query_draws: int = 4
    """Draws averaged in each of them."""
    noises: int = 20
    """Uniform points of the ball for an image, and as many of its corners."""
    scoring: int = 10
    """Fresh predictions behind the correctness of an image."""


class Attacks:
    """The attacks on one subject. White-box ones go through its surrogate, but where they say otherwise."""

    def __init__(self, subject: Subject, epsilon: float, effort: Effort, generator: torch.Generator) -> None:
        self.subject, self.epsilon, self.effort, self.generator = subject, epsilon, effort, generator
        self.draws = effort.draws if subject.random_attacked else 1
        self.few_draws = -(-self.draws // 4)
        """For attacks of many steps, which average draws over their steps too."""

    def white_box(
        self,
        objective: Objective,
        *,
        epsilon: float | None = None,
        steps: int | None = None,
        draws: int | None = None,
        context: Callable[[], AbstractContextManager[object]] | None = None,
        model: Classifier | None = None,
    ) -> Attack:
        """PGD from a random start, each step 2.5 epsilon / steps long (Madry et al. 2017, 1706.06083)."""
        epsilon, steps = epsilon or self.epsilon, steps or self.effort.steps
        context = context or self.subject.attacked

        def attack(images: Tensor, labels: Tensor) -> Tensor:
            with context():
                return pgd(
                    model or self.subject.model,
                    images,
                    labels,
                    epsilon=epsilon,
                    step=2.5 * epsilon / steps,
                    steps=steps,
                    objective=objective,
                    draws=draws or self.draws,
                    expand=False,  # right for every kind of randomness, one draw for a whole pass included
                    generator=self.generator,
                )

        return attack

    def naive(self, epsilon: float | None = None) -> Attack:
        """What is usually reported: the cross-entropy's plain gradient, of one draw."""
        steps, context = self.effort.short_steps, self.subject.plain
        return self.white_box(cross_entropy, epsilon=epsilon, steps=steps, draws=1, context=context)

    def through(
        self, context: Callable[[], AbstractContextManager[object]], epsilon: float | None = None
    ) -> list[Attack]:
        """Both objectives, through a stand-in of another kind."""
        draws = self.effort.draws if self.subject.random_plain else 1
        return [
            self.white_box(objective, epsilon=epsilon, draws=draws, context=context)
            for objective in (cross_entropy, margin)
        ]

    def transfer(self, other: Classifier) -> Attack:
        """The gradient of another network."""
        return self.white_box(margin, draws=1, context=self.subject.plain, model=other)

    def one_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """FGSM."""
        with self.subject.attacked():
            return fgsm(self.subject.model, images, labels, epsilon=self.epsilon, draws=self.draws, expand=False)

    def auto_pgd(self, images: Tensor, labels: Tensor) -> Tensor:
        """Steps that adapt, twice as many."""
        with self.subject.attacked():
            return apgd(
                self.subject.model,
                images,
                labels,
                epsilon=self.epsilon,
                steps=2 * self.effort.steps,
                draws=-(-self.draws // 2),
                expand=False,
                generator=self.generator,
            )

    def targeted(self, images: Tensor, labels: Tensor) -> Tensor:
        """The strongest there is: Auto-PGD towards every likely class; with too few classes, on the margin."""
        with self.subject.attacked():
            classes = self.subject.model(images[:1]).shape[1]
            settings: dict[str, Any] = {
                "epsilon": self.epsilon,
                "steps": self.effort.steps,
                "draws": self.draws,
                "expand": False,
                "generator": self.generator,
            }
            if classes >= LEAST_CLASSES_TARGETED:
                return apgd_targeted(self.subject.model, images, labels, classes=classes, **settings)
            restarts = self.effort.restarts
            return apgd(self.subject.model, images, labels, objective=margin, restarts=restarts, **settings)

    def black_box(self, epsilon: float | None = None) -> Attack:
        """Square, on what is scored."""

        def attack(images: Tensor, labels: Tensor) -> Tensor:
            with self.subject.plain():
                return square(
                    self.subject.predict,
                    images,
                    labels,
                    epsilon=epsilon or self.epsilon,
                    queries=self.effort.queries,
                    draws=self.effort.query_draws if self.subject.random else 1,
                    expand=False,
                    generator=self.generator,
                )

        return attack

    def chance(self, images: Tensor, labels: Tensor) -> Tensor:
        """The worst of random points of the ball and of its corners, by the margin of one draw."""
        best, score = images, images.new_full((len(images),), -torch.inf)
        with self.subject.plain():
            for index in range(2 * self.effort.noises):
                tried = noise(images, epsilon=self.epsilon, norm="linf", generator=self.generator)
                if index % 2:
                    tried = (images + self.epsilon * (tried - images).sign()).clamp(0, 1)
                values = objective_values(self.subject.predict, tried, labels, margin)
                best = torch.where((values > score)[:, None, None, None], tried, best)
                score = torch.maximum(values, score)
        return best
