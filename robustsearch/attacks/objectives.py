"""Objectives: what an attack maximises, one value per image.

All are unchanged by a constant added to all logits of an image, so log-probabilities serve as logits. The two
logit ratios are unchanged by a factor too, so that large logits do not saturate them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]
"""`(logits [N, classes], labels [N]) -> values [N]`, to be maximised."""

LEAST_CLASSES_DLR, LEAST_CLASSES_TARGETED = 3, 4
"""Classes that `dlr` and `targeted_dlr` need."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p_y `[N]`, in nats."""
    return F.cross_entropy(logits, labels, reduction="none")


def divergence_from(reference: Tensor) -> Objective:
    """KL(p || q) `[N]`, in nats, from p = softmax(reference `[N, classes]`) to the prediction q; no label counts.

    What TRADES maximises (Zhang et al. 2019, 1901.08573, eq. 5). Its gradient is zero where q = p, so an attack
    must not start there. The objective takes copies of the batch too, as `targeted_dlr` does.
    """
    log_p = F.log_softmax(reference, dim=1)

    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        copies = log_p.repeat(len(logits) // max(len(log_p), 1), 1)
        return F.kl_div(F.log_softmax(logits, dim=1), copies, reduction="none", log_target=True).sum(1)

    return objective


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} Z_j - Z_y `[N]`: positive where the model is wrong. It never saturates.

    Among equal runners-up the gradient is shared, so that the order of the classes does not matter.
    """
    label = labels.unsqueeze(1)
    runner_up = logits.scatter(1, label, -torch.inf).amax(1)
    return runner_up - logits.gather(1, label).squeeze(1)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio `[N]` (Croce & Hein 2020, 2003.01690, eq. 6), the margin / (Z_(1) - Z_(3)).

    Z_(k) is the k-th largest logit. In [-1, 0] where the model is right, else positive. Where the three largest
    logits are equal, the denominator is 1.

    Raises:
        ValueError: there are fewer than 3 classes.
    """
    top = _largest(logits, LEAST_CLASSES_DLR, "dlr")
    return margin(logits, labels) / _or_one(top[0] - top[2])


def targeted_dlr(targets: Tensor) -> Objective:
    """(Z_t - Z_y) / (Z_(1) - (Z_(3) + Z_(4)) / 2), eq. 7 of the same paper, towards the classes t = targets `[N]`.

    The objective takes copies of the batch too, one after the other, as the draws of `input_gradient` are. It
    raises ValueError where there are fewer than 4 classes.
    """

    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        top = _largest(logits, LEAST_CLASSES_TARGETED, "targeted_dlr")
        target = targets.repeat(len(labels) // max(len(targets), 1))
        ahead = logits.gather(1, target.unsqueeze(1)) - logits.gather(1, labels.unsqueeze(1))
        return ahead.squeeze(1) / _or_one(top[0] - (top[2] + top[3]) / 2)

    return objective


def _largest(logits: Tensor, k: int, name: str) -> Tensor:
    """The k largest logits `[k, N]`, in falling order."""
    if logits.shape[1] < k:
        raise ValueError(f"{name} needs at least {k} classes, but got {logits.shape[1]}")
    return logits.topk(k, dim=1).values.T


def _or_one(spread: Tensor) -> Tensor:
    return spread.where(spread > 0, 1)
