"""Carlini & Wagner's l_2 attack (2016, 1608.04644): the nearest image that the model gets wrong.

It minimises, over w with x' = (tanh(w) + 1) / 2 (section V-B of the paper),

    ||x' - x||^2 + c * max(Z_y - max_{j != y} Z_j, -kappa)        (section VI-A, untargeted)

The margin of `objectives.py` is max_{j != y} Z_j - Z_y, so the second term is -c * min(margin, kappa): the
margin is pushed up until it exceeds kappa, and from there on only the distance counts. An iterate succeeds
where its margin exceeds kappa; at kappa = 0 a tie is no success. For a random model the margin is the mean
over its draws, in the hinge and in the success.

Where no iterate succeeds the image comes back unchanged. A robust accuracy under this attack holds at a
stated l_2 budget only: score the results afresh and count those within the budget.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .gradient import Classifier
from .loop import Best, Observer, run
from .objectives import margin
from .projections import clip


def cw(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    c: float,
    kappa: float = 0.0,
    steps: int,
    lr: float = 0.01,
    draws: int = 1,
    expand: bool = True,
    keep: Literal["smallest", "last"] = "smallest",
) -> Tensor:
    """The attack at one fixed c.

    Args:
        model: from images to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`.
        c: weight of the margin against the squared distance, in squared pixel units per logit. A small one
            does nothing: 1e-4, the report's, leaves an undefended network's accuracy as it was; 1 breaks it.
        kappa: confidence, in logits: the margin by which the model has to be wrong.
        steps: Adam steps.
        lr: learning rate of Adam, in units of w: near mid-grey, w changes by 2 where a pixel changes by 1.
            Pixels at 0 and 1 begin at |w| = 7.3, so that at 0.01 they need hundreds of steps to come free.
        draws: predictions over which the margin is averaged, see `input_gradient`.
        expand: whether these share one pass, see `input_gradient`.
        keep: per image the nearest success, else the image itself; or the last iterate, a success or not,
            which is what a training batch wants and costs one prediction less.
    """
    nearest = _NearestSuccess(images, kappa=kappa)
    last = _descend(
        model,
        images,
        labels,
        c=images.new_full((len(images),), c),
        kappa=kappa,
        steps=steps,
        lr=lr,
        draws=draws,
        expand=expand,
        observe=nearest.observe if keep == "smallest" else None,
    )
    return {"smallest": nearest.images, "last": last}[keep]


@torch.no_grad()
def cw_search(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    searches: int,
    steps: int,
    c_start: float = 1.0,
    kappa: float = 0.0,
    lr: float = 0.01,
    draws: int = 1,
    expand: bool = True,
) -> Tensor:
    """The attack with each image's own c, found by search: ten times larger until it succeeds, then bisected.

    Returns per image the nearest success of all searches, else the image itself. Each search starts w and
    Adam afresh. No image has an influence on another.

    Args:
        model: from images to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`.
        searches: values of c to try for each image.
        steps: Adam steps of each search.
        c_start: the first c; the paper has 1e-3, from where it takes some searches to break anything at all.
        kappa: see `cw`.
        lr: see `cw`.
        draws: see `cw`.
        expand: see `cw`.
    """
    best = Best(images)
    c = images.new_full((len(images),), c_start)
    low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
    for _ in range(searches):
        nearest = _NearestSuccess(images, kappa=kappa)
        _descend(
            model,
            images,
            labels,
            c=c,
            kappa=kappa,
            steps=steps,
            lr=lr,
            draws=draws,
            expand=expand,
            observe=nearest.observe,
        )
        best.offer(nearest.images, nearest.score)
        found = nearest.score > -torch.inf
        low, high = torch.where(found, low, c), torch.where(found, c, high)
        c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
    return best.images


def _descend(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    c: Tensor,
    kappa: float,
    steps: int,
    lr: float,
    draws: int,
    expand: bool,
    observe: Observer | None,
) -> Tensor:
    """The last iterate `[N, C, H, W]` of Adam on w, with a weight c `[N]` for each image."""
    adam = _TanhAdam(images, c=c, kappa=kappa, lr=lr)
    return run(
        model,
        images,
        labels,
        start=adam.start,
        step=adam.step,
        project=clip,
        objective=margin,
        steps=steps,
        draws=draws,
        expand=expand,
        observe=observe,
    )


class _NearestSuccess(Best):
    """Per image the success with the smallest l_2 distance."""

    def __init__(self, images: Tensor, *, kappa: float) -> None:
        super().__init__(images)
        self._original = self.images
        self._kappa = kappa

    def observe(self, iterate: Tensor, margins: Tensor) -> None:
        """Keep those iterates that succeed nearer to the image than what is kept."""
        distance = torch.linalg.vector_norm(iterate - self._original, dim=(1, 2, 3))
        self.offer(iterate, torch.where(margins > self._kappa, -distance, -torch.inf))


class _TanhAdam:
    """Start and step of the attack: w and Adam's moments, all `[N, C, H, W]`.

    Adam is that of Kingma & Ba (2014, 1412.6980, algorithm 1), written out since its state is per pixel.
    """

    INSIDE = 0.999999
    """Pixels at 0 and 1 begin this far towards the ends of tanh's range, where it still has a slope."""
    BETA1, BETA2, EPS = 0.9, 0.999, 1e-8

    def __init__(self, images: Tensor, *, c: Tensor, kappa: float, lr: float) -> None:
        self._images = images.detach()
        self._c = c[:, None, None, None]
        self._kappa = kappa
        self._lr = lr
        self._w = torch.atanh((2 * self._images - 1) * self.INSIDE)
        self._mean = torch.zeros_like(self._w)
        self._square = torch.zeros_like(self._w)
        self._t = 0

    def start(self, images: Tensor) -> Tensor:
        """The first x': the images, a millionth of the way towards grey."""
        return (torch.tanh(self._w) + 1) / 2

    def step(self, iterate: Tensor, gradient: Tensor, margins: Tensor) -> Tensor:
        """The next x', after one step of Adam on w; the gradient is that of the margin in x'."""
        hinge = (margins <= self._kappa)[:, None, None, None]
        slope = 2 * (iterate - self._images) - self._c * hinge * gradient  # of the loss in x'
        slope = slope * (1 - torch.tanh(self._w) ** 2) / 2  # in w
        self._t += 1
        self._mean = self.BETA1 * self._mean + (1 - self.BETA1) * slope
        self._square = self.BETA2 * self._square + (1 - self.BETA2) * slope**2
        mean = self._mean / (1 - self.BETA1**self._t)
        square = self._square / (1 - self.BETA2**self._t)
        self._w = self._w - self._lr * mean / (square.sqrt() + self.EPS)
        return (torch.tanh(self._w) + 1) / 2
