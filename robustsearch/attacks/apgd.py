"""Auto-PGD (Croce & Hein 2020, 2003.01690): PGD with momentum that finds its step sizes by itself.

Each image has its own step size. It begins at 2 epsilon and is halved, at a few checkpoints, where the objective has
ceased to rise; the image then goes on from its best point so far. For a random model all of this sees means over draws
(expectation over transformation; the paper's evaluation of random defences, `rand`, has 20).

What an attack returns is, per image, the point with the highest mean margin of all that it has seen. A model without
randomness is wrong there if it was wrong anywhere, which the highest cross-entropy of several classes does not promise.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..recipe import Norm
from .gradient import Classifier
from .loop import Best, run
from .objectives import LEAST_CLASSES_TARGETED, Objective, cross_entropy, margin, targeted_dlr
from .projections import onto_ball
from .starts import uniform_in_ball
from .steps import steepest_ascent


def apgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    norm: Norm = "linf",
    steps: int = 100,
    objective: Objective = cross_entropy,
    draws: int = 1,
    expand: bool = True,
    restarts: int = 1,
    generator: torch.Generator,
) -> Tensor:
    """Auto-PGD towards the highest objective.

    Args:
        model: from images to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`.
        epsilon: radius of the ball.
        norm: norm of ball and step.
        steps: steps to make from each start.
        objective: what is maximised; the paper's are `cross_entropy` and `dlr`.
        draws: predictions over which objective, margin and gradient are averaged, see `input_gradient`.
        expand: whether these share one pass, see `input_gradient`.
        restarts: random starts to make, the first included.
        generator: source of the random starts.
    """
    return _highest_margin(
        model,
        images,
        labels,
        objectives=[objective] * restarts,
        epsilon=epsilon,
        norm=norm,
        steps=steps,
        draws=draws,
        expand=expand,
        generator=generator,
    )


def apgd_targeted(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    targets: int = 9,
    epsilon: float,
    norm: Norm = "linf",
    steps: int = 100,
    draws: int = 1,
    expand: bool = True,
    restarts: int = 1,
    generator: torch.Generator,
) -> Tensor:
    """Auto-PGD towards each of the likeliest wrong classes in turn, by the targeted DLR.

    Args:
        model: from images to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`.
        classes: how many the model tells apart.
        targets: wrong classes to try, the likeliest first; of more than `classes - 1`, only so many.
        epsilon: see `apgd`.
        norm: see `apgd`.
        steps: steps to make towards each class from each start.
        draws: see `apgd`.
        expand: see `apgd`.
        restarts: see `apgd`.
        generator: see `apgd`.

    Raises:
        ValueError: there are fewer than 4 classes.
    """
    if classes < LEAST_CLASSES_TARGETED:
        raise ValueError(f"`classes >= {LEAST_CLASSES_TARGETED}` must hold for the targeted DLR, but got {classes}")
    wrong = _likeliest_wrong(model, images, labels, draws=draws) if len(images) else labels.new_zeros(0, 0)
    return _highest_margin(
        model,
        images,
        labels,
        objectives=[targeted_dlr(target) for target in wrong[: min(targets, classes - 1)] for _ in range(restarts)],
        epsilon=epsilon,
        norm=norm,
        steps=steps,
        draws=draws,
        expand=expand,
        generator=generator,
    )


def _highest_margin(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    objectives: Iterable[Objective],
    epsilon: float,
    norm: Norm,
    steps: int,
    draws: int,
    expand: bool,
    generator: torch.Generator,
) -> Tensor:
    """Per image the point with the highest mean margin, of one run for each objective."""
    highest = Best(images)
    for objective in objectives if len(images) else ():
        auto = _AutoStep(images, objective=objective, highest=highest, epsilon=epsilon, norm=norm, steps=steps)
        run(
            model,
            images,
            labels,
            start=uniform_in_ball(norm, epsilon=epsilon, generator=generator),
            step=auto.step,
            project=auto.project,
            objective=auto.objective,
            steps=steps,
            draws=draws,
            expand=expand,
            observe=auto.observe,
        )
    return highest.images


@torch.no_grad()
def _likeliest_wrong(model: Classifier, images: Tensor, labels: Tensor, *, draws: int) -> Tensor:
    """Classes `[classes, N]` by falling mean log-probability over draws, the label last."""
    scores = torch.stack([model(images).log_softmax(1) for _ in range(draws)]).mean(0)
    return scores.scatter(1, labels.unsqueeze(1), -torch.inf).argsort(1, descending=True).T


def checkpoints(steps: int) -> list[int]:
    """The iterates, counted from the start at 0, at which step sizes may be halved (section 3, "step size selection").

    w_j = ceil(p_j steps), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06); here in hundredths,
    which are exact. w_0 is left out.
    """
    found, share, width = [], 22, 22
    while share < 100:
        found.append(-(-share * steps // 100))
        width = max(width - 3, 6)
        share += width
    return sorted(set(found))


class _AutoStep:
    """Objective, observer and step of one run (the paper's algorithm 1), with the state of each image.

    The loop asks for them in this order at each iterate. At a checkpoint w the step goes out from the best point in
    place of x_w, as in the published code; the paper replaces x_{w+1}, whose gradient is then lost.
    """

    MOMENTUM = 0.75
    """alpha, the share of the new step; the remainder is the step before it."""
    RISES = 0.75
    """rho, the share of steps since the last checkpoint that must have raised the objective."""

    def __init__(
        self, images: Tensor, *, objective: Objective, highest: Best, epsilon: float, norm: Norm, steps: int
    ) -> None:
        self.project = onto_ball(norm, epsilon=epsilon)
        self._objective = objective
        self._highest = highest  # by margin, of all runs
        self._margins: list[Tensor] = []  # of the present iterate's draws
        self._best = Best(images)  # by objective
        self._images = images.detach()
        self._norm = norm
        self._checkpoints = checkpoints(steps)
        self._k = 0
        self._checked_at = 0
        self._length = images.new_full((len(images), 1, 1, 1), 2 * epsilon)
        self._values = images.new_full((len(images),), torch.inf)  # of the iterate before
        self._rises = torch.zeros_like(self._values)  # since the last checkpoint
        self._halved = torch.zeros_like(self._values, dtype=torch.bool)  # at the last checkpoint
        self._checked_score = self._values  # the best, at the last checkpoint
        self._improved = self._halved
        self._best_gradient = torch.zeros_like(self._images)
        self._previous = self._images

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The objective, with the margins kept aside."""
        self._margins.append(margin(logits.detach(), labels))
        return self._objective(logits, labels)

    def observe(self, iterate: Tensor, values: Tensor) -> None:
        """Count the images whose objective has risen, and keep each one's best points."""
        self._highest.offer(iterate, torch.cat(self._margins).view(-1, len(iterate)).mean(0))
        self._margins.clear()
        self._rises = self._rises + (values > self._values)
        self._values = values
        self._improved = values > self._best.score
        self._best.offer(iterate, values)

    def step(self, iterate: Tensor, gradient: Tensor, values: Tensor) -> Tensor:
        """The next iterate: an ascent of its own, mixed with the move that led here."""
        self._best_gradient = torch.where(_per_image(self._improved), gradient, self._best_gradient)
        if self._k == 0:
            self._previous, self._checked_score = iterate, self._best.score
        share = self.MOMENTUM if self._k else 1.0
        if self._k in self._checkpoints:
            restart = _per_image(self._halve())
            iterate = torch.where(restart, self._best.images, iterate)
            gradient = torch.where(restart, self._best_gradient, gradient)
        climb = steepest_ascent(self._norm, step=self._length)
        ascent = self.project(climb(iterate, gradient, values), self._images)
        moved = iterate + share * (ascent - iterate) + (1 - share) * (iterate - self._previous)
        self._previous = iterate
        self._k += 1
        return moved

    def _halve(self) -> Tensor:
        """Halve the step sizes that have served; which ones, `[N]`. Begins the count to the next checkpoint.

        Conditions 1 and 2 of section 3. The published code differs, with no effect that could be measured: it has "<="
        in condition 1, compares with the value before a restart, and begins condition 2 at the second checkpoint.
        """
        too_few_rises = self._rises < self.RISES * (self._k - self._checked_at)
        stalled = ~self._halved & (self._best.score == self._checked_score)
        self._halved = too_few_rises | stalled
        self._length = torch.where(_per_image(self._halved), self._length / 2, self._length)
        self._values = torch.where(self._halved, self._best.score, self._values)
        self._rises = torch.zeros_like(self._rises)
        self._checked_at, self._checked_score = self._k, self._best.score
        return self._halved


def _per_image(values: Tensor) -> Tensor:
    """`[N]` as `[N, 1, 1, 1]`."""
    return values[:, None, None, None]
