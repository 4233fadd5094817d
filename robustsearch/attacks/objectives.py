"""Objectives: what an attack maximises, one value per image.

Both are unchanged by a constant added to all logits of an image, so log-probabilities serve as logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]
"""`(logits [N, classes], labels [N]) -> values [N]`, to be maximised."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p_y `[N]`, in nats."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} Z_j - Z_y `[N]`: positive where the model is wrong. It never saturates.

    Among equal runners-up the gradient is shared, so that the order of the classes does not matter.
    """
    label = labels.unsqueeze(1)
    runner_up = logits.scatter(1, label, -torch.inf).amax(1)
    return runner_up - logits.gather(1, label).squeeze(1)
