"""The masking checks: what each one compares, how far its value may go, and why; `masking.py` says what for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ..attacks.gradient import Classifier
from ..attacks.objectives import cross_entropy, margin
from .masking_attacks import Attacks
from .masking_gradients import cosine_between_draws, dead, slope_correlation
from .subject import BATCH, Attack, Found, Subject, Surrogate, add, unattacked, worst

STANDARD_ERRORS = 2.0

ALONE = 16
"""Images that are predicted one at a time."""

OVERSTATED, MOST_OVERSTATED = "ordinary PGD overstates the strongest attacks by less than 0.08", 0.08
"""Published for adversarially trained networks of CIFAR-10: 3 to 6 points from PGD-20 to AutoAttack; on digits 5.8."""


@dataclass(frozen=True)
class Check:
    """One check: what was measured, what it may be, and why."""

    name: str
    value: float | None
    """None where the check could not be made; the reason says why."""
    threshold: float | None
    """None where the value is reported only."""
    passed: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Accuracies of one classifier on the images given, in [0, 1], and whether they can be believed."""

    masked: bool
    natural_accuracy: float
    naive_accuracy: float
    """Under PGD on the cross-entropy through the plain gradient of one draw."""
    robust_accuracy: float
    """Mean over images of the worst over all attacks, each scored on fresh draws."""
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that found masking."""
        return tuple(check for check in self.checks if not check.passed)


def allowance(first: Tensor, second: Tensor, tolerance: float) -> float:
    """The larger of the tolerance and two standard errors of mean(first - second), for scores `[N]` in [0, 1].

    The error is that of McNemar (1947), the binomial one of the images on which the two disagree, with one image
    more, so that a few agreeing images prove nothing.
    """
    squares = float((first - second).square().sum())
    return max(tolerance, STANDARD_ERRORS * math.sqrt(squares + 1) / len(first))


def share_limit(tolerance: float, n: int) -> float:
    """A share of n images that a true share of `tolerance` exceeds by two standard errors."""
    return tolerance + STANDARD_ERRORS * math.sqrt(tolerance * (1 - tolerance) / n)


class Examination:
    """One subject on its images: every check, with what it found."""

    def __init__(self, subject: Subject, attacks: Attacks, images: Tensor, labels: Tensor) -> None:
        self.subject, self.attacks, self.images, self.labels = subject, attacks, images, labels
        self.natural = unattacked(subject, images, labels)

    def verdict(
        self, *, claimed: float | None, transfer: Classifier | None, others: Mapping[str, Surrogate]
    ) -> Verdict:
        """All checks, and the worst that any of their attacks found."""
        naive = self.add(self.natural, self.attacks.naive())
        by_entropy, by_margin = (
            self.add(self.natural, self.attacks.white_box(objective)) for objective in (cross_entropy, margin)
        )
        examined = worst(by_entropy, by_margin)
        robust, checks = worst(examined, naive), []
        for name, tolerance, guided, attacks, reason in self.alternatives(transfer, others):
            found = self.add(examined, *attacks)
            check = _drop(name, examined, found, tolerance, reason)
            if not check.passed and not guided:
                harder = self.add(examined, self.attacks.targeted, where=found.chosen_by < examined.chosen_by)
                found = worst(harder, found)
                check = _drop(name, harder, found, tolerance, reason)
            checks.append(check)
            robust = worst(robust, found)
        checks += [
            self.objectives(by_entropy, by_margin),
            *self.larger_balls(examined),
            self.zero_gradients(),
            self.finite_differences(),
            self.alone(examined),
            self.gap(naive, robust),
            *self.claim(claimed, robust),
            *self.one_draw(naive, by_entropy),
            *self.cosine(),
        ]
        return Verdict(
            masked=not all(check.passed for check in checks),
            natural_accuracy=self.natural.accuracy,
            naive_accuracy=naive.accuracy,
            robust_accuracy=min(robust.accuracy, naive.accuracy),  # above it by the noise of fresh draws at most
            checks=tuple(checks),
        )

    def add(self, found: Found, *attacks: Attack, where: Tensor | None = None) -> Found:
        """The worst of `found` and of these attacks on the images that it left, within the mask `where` `[N]`."""
        for attack in attacks:
            found = add(self.subject, found, attack, self.images, self.labels, where=where)
        return found

    # Nothing does better

    def alternatives(
        self, transfer: Classifier | None, others: Mapping[str, Surrogate]
    ) -> Iterator[tuple[str, float, bool, list[Attack], str]]:
        """Attacks that must break hardly any image which the examined one left.

        Name, tolerance, whether the examined gradient guides them, attacks, reason. What breaks images without that
        gradient proves no masking where it shows a more thorough attack the way to them (`Attacks.targeted`).
        """
        make, effort = self.attacks, self.attacks.effort
        longer = make.white_box(margin, steps=effort.long_steps, draws=make.few_draws)
        again = [make.white_box(margin, draws=make.few_draws)] * effort.restarts
        yield "one step", 0.02, True, [make.one_step], "many small steps contain the one large step"
        yield "random noise", 0.02, False, [make.chance], "a gradient must show a better way than chance"
        yield "square", 0.02, False, [make.black_box()], "a gradient must show a better way than a search without one"
        yield "more steps", 0.03, True, [longer], "an attack that has converged gains nothing from more steps"
        yield (
            "adaptive steps",
            0.03,
            True,
            [make.auto_pgd],
            "an attack that has converged gains nothing from finer steps",
        )
        yield "more restarts", 0.03, True, again, "a smooth loss is climbed from any start"
        if self.subject.random_attacked:
            more = make.white_box(margin, steps=effort.short_steps, draws=effort.more_draws)
            yield "more draws", 0.03, True, [more], "where enough draws are averaged, more of them find no more"
        if self.subject.has_surrogate:
            yield (
                "plain gradient",
                0.02,
                False,
                [make.naive()],
                "a surrogate must be a better guide than what it replaces",
            )
        if transfer is not None:
            attack = make.transfer(transfer)
            yield "transfer", 0.02, False, [attack], "another network's gradient must not know the way better"
        for name, other in others.items():
            attacks = make.through(partial(self.subject.through, other))
            yield f"through {name}", 0.02, False, attacks, "a smooth stand-in must not know the way better"

    def objectives(self, by_entropy: Found, by_margin: Found) -> Check:
        """Cross-entropy against margin."""
        value = abs(by_entropy.accuracy - by_margin.accuracy)
        limit = allowance(by_entropy.right, by_margin.right, 0.05)
        return _at_most(
            "cross-entropy or margin", value, limit, "saturated logits leave the margin a slope, the cross-entropy none"
        )

    # Behaviour

    def larger_balls(self, examined: Found) -> Iterator[Check]:
        """The sweep over epsilon."""
        make, epsilon = self.attacks, self.attacks.epsilon
        scores = {epsilon: examined}
        for radius in {epsilon / 2, min(1.0, 2 * epsilon), min(1.0, 4 * epsilon), 1.0} - {epsilon}:
            attacks = [
                make.white_box(objective, epsilon=radius, steps=make.effort.short_steps, draws=make.few_draws)
                for objective in (cross_entropy, margin)
            ]
            scores[radius] = self.add(self.natural, *attacks)
        ordered = [scores[radius] for radius in sorted(scores)]
        limit = share_limit(0.02, len(self.images))
        yield _at_most(
            "accuracy at epsilon 1", ordered[-1].accuracy, limit, "within epsilon 1 any image can become any other"
        )
        before, after = max(pairwise(ordered), key=lambda pair: pair[1].accuracy - pair[0].accuracy)
        yield _drop("rise with epsilon", after, before, 0.03, "a larger ball contains the smaller one")

    def alone(self, examined: Found) -> Check:
        """A few images, and what was made of them, one at a time and together."""
        images = torch.cat([self.images[:ALONE], examined.images[:ALONE]])
        labels = self.labels[:ALONE].repeat(2)
        together = self.subject.score(images, labels)
        pairs = zip(torch.split(images, 1), torch.split(labels, 1), strict=True)
        each = torch.cat([self.subject.score(image, label) for image, label in pairs])
        value, limit = abs(float((each - together).mean())), allowance(each, together, 0.02)
        return _at_most("one image alone", value, limit, "a prediction must not depend on the images beside it")

    # Gradients

    def zero_gradients(self) -> Check:
        """Share of images without a gradient."""
        value = float(dead(self.subject, self.images, self.labels, draws=self.attacks.draws).double().mean())
        limit = share_limit(0.01, len(self.images))
        return _at_most("zero gradients", value, limit, "an attack cannot follow a gradient that is zero or not finite")

    def finite_differences(self) -> Check:
        """Gradient against central differences."""
        name, generator, epsilon = "finite differences", self.attacks.generator, self.attacks.epsilon
        images, labels = self.images[:BATCH], self.labels[:BATCH]
        value = slope_correlation(self.subject, images, labels, epsilon=epsilon, generator=generator)
        if value is None:
            return Check(name, None, 0.9, True, "not checked: the draws of a pass cannot be repeated")
        reason = "the gradient must be the slope of what is attacked, over a quarter of epsilon"
        return Check(name, value, 0.9, value >= 0.9, reason)

    def cosine(self) -> list[Check]:
        """Agreement of draws, for random models."""
        if not self.subject.random_plain:
            return []
        value = cosine_between_draws(self.subject, self.images[:BATCH], self.labels[:BATCH])
        return [Check("cosine between draws", value, None, True, "reported: near 0 one draw's gradient is noise")]

    # What is said

    def gap(self, naive: Found, robust: Found) -> Check:
        """What the plain gradient says; a surrogate exists because that misleads, so there it is no verdict."""
        name = "naive minus robust"
        if self.subject.has_surrogate:
            value = naive.accuracy - robust.accuracy
            return Check(name, value, None, True, "reported: the score comes through the surrogate")
        return _drop(name, naive, robust, MOST_OVERSTATED, OVERSTATED)

    def one_draw(self, naive: Found, by_entropy: Found) -> list[Check]:
        """Two attacks on the cross-entropy, of one draw and of many, for random models without a surrogate."""
        if not self.subject.random_plain or self.subject.has_surrogate:
            return []
        return [_drop("one draw", naive, by_entropy, 0.03, "one draw must show the way that the mean of many shows")]

    def claim(self, claimed: float | None, robust: Found) -> list[Check]:
        """A score from elsewhere, taken as that of as many other images."""
        if claimed is None:
            return []
        variance = (claimed * (1 - claimed) + robust.accuracy * (1 - robust.accuracy)) / len(self.images)
        limit = max(MOST_OVERSTATED, STANDARD_ERRORS * math.sqrt(variance))
        return [_at_most("claimed minus robust", claimed - robust.accuracy, limit, OVERSTATED)]


def _drop(name: str, weaker: Found, stronger: Found, tolerance: float, reason: str) -> Check:
    """Whether the accuracy under the second is not much lower than under the first."""
    limit = allowance(weaker.right, stronger.right, tolerance)
    return _at_most(name, weaker.accuracy - stronger.accuracy, limit, reason)


def _at_most(name: str, value: float, threshold: float, reason: str) -> Check:
    return Check(name, value, threshold, value <= threshold, reason)
