"""Masking checks: whether an accuracy under attack tells the truth, or the attack was blind (docs/honesty.md).

A classifier masks its gradients where they do not show an attack the way although there is one (Athalye et al. 2018,
1802.00420). One strong white-box attack is examined: PGD on the cross-entropy and on the margin, through the
classifier's surrogate if it names one, averaged over draws if it is random. It must hold up in three ways:

    nothing does better   other attacks, each on the images that it left, break hardly any more of them
    gradients             are neither zero nor wrong, and one objective does as well as the other
    behaviour             a larger ball leaves less, an unbounded one nothing; an image's neighbours do not matter

and what others claim, or the plain gradient says, must agree with the worst that was found. Each check is a number, a
threshold with its reason, and a verdict; the classifier masks if one fails.

A threshold starts from a tolerance, the least that matters, and allows two binomial standard errors for the n images at
hand: above the tolerance, where the value is a share of the images (`share_limit`); of the difference, where that is
the larger, if it is one of two scores of the same images (`allowance`).

Measured on digits: Gaussian noise on the input of a plain network (sigma 0.5) hides little, as PGD averages it over its
steps: the plain gradient of one draw leaves about 5 points more than one of 64 draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from ..attacks.gradient import Classifier
from ..seeds import derive
from .masking_attacks import Attacks, Effort
from .masking_checks import Check, Examination, Verdict
from .replay import Generators
from .subject import Subject, Surrogate

__all__ = ["Check", "Effort", "Verdict", "accuracy_curves", "masking_checks"]


def masking_checks(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    surrogate: Surrogate | None = None,
    predict: Classifier | None = None,
    claimed: float | None = None,
    transfer: Classifier | None = None,
    others: Mapping[str, Surrogate] | None = None,
    effort: Effort | None = None,
    seed: int = 0,
) -> Verdict:
    """Attack a classifier in every way there is, and check the scores against each other.

    Args:
        model: from images to logits (log-probabilities serve as such); may be random, from any generator.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`.
        epsilon: l_inf radius, pixel units of [0, 1].
        surrogate: opens a context in which the model is smooth, and is attacked.
        predict: what is scored, if not one pass of the model: its mean over draws, say.
        claimed: robust accuracy that some other evaluation found at this epsilon, in [0, 1].
        transfer: a plainly trained network, attacked in the model's place.
        others: further surrogates to attack through, by name; none of them may do better.
        effort: what the attacks may cost.
        seed: of the attacks, and of the model's draws while it is examined: the global generators and those that
            it holds are left where they stood.
    """
    with _examination(model, images, labels, epsilon, surrogate, predict, effort or Effort(), seed) as examination:
        return examination.verdict(claimed=claimed, transfer=transfer, others=others or {})


def accuracy_curves(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    surrogate: Surrogate | None = None,
    others: Mapping[str, Surrogate] | None = None,
    effort: Effort | None = None,
    seed: int = 0,
) -> dict[str, dict[float, float]]:
    """Accuracy by radius, from 0 to four times epsilon, under the `naive` and the `adaptive` attack.

    The adaptive one is the naive one, both objectives through the surrogate and all others, and Square, which no masked
    gradient hinders. Arguments are those of `masking_checks`.
    """
    curves: dict[str, dict[float, float]] = {"naive": {}, "adaptive": {}}
    effort = effort or Effort()
    with _examination(model, images, labels, epsilon, surrogate, None, effort, seed) as examination:
        contexts = [examination.subject.attacked]
        contexts += [partial(examination.subject.through, other) for other in (others or {}).values()]
        make = examination.attacks
        for curve in curves.values():
            curve[0.0] = examination.natural.accuracy
        for radius in sorted({min(1.0, factor * epsilon) for factor in (0.5, 1, 2, 4)}):
            naive = examination.add(examination.natural, make.naive(radius))
            through = [attack for context in contexts for attack in make.through(context, radius)]
            adaptive = examination.add(naive, *through, make.black_box(radius))
            curves["naive"][radius], curves["adaptive"][radius] = naive.accuracy, adaptive.accuracy
    return curves


@contextmanager
def _examination(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    surrogate: Surrogate | None,
    predict: Classifier | None,
    effort: Effort,
    seed: int,
) -> Iterator[Examination]:
    """An examination with draws of its own, all from the seed."""
    with Generators(model).kept(seed):
        subject = Subject(model, images, surrogate=surrogate, predict=predict, scoring=effort.scoring, seed=seed)
        generator = torch.Generator().manual_seed(derive(seed, "masking"))
        yield Examination(subject, Attacks(subject, epsilon, effort, generator), images, labels)
