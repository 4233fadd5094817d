"""Steps: where an attack goes from its present iterate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..recipe import Norm

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(iterate [N, C, H, W], gradient [N, C, H, W], values [N]) -> next iterate, before projection`.

The gradient is the objective's, which is to grow, and is finite; the values are for steps that adapt to them.
"""


def steepest_ascent(norm: Norm, *, step: float | Tensor) -> Step:
    """The step of this length that raises the linearised objective most; none where the gradient is zero.

    The length is one for all images or, `[N, 1, 1, 1]`, each one's own.
    """
    directions: dict[Norm, Callable[[Tensor], Tensor]] = {"linf": torch.sign, "l2": unit}
    direction = directions[norm]

    def ascend(iterate: Tensor, gradient: Tensor, values: Tensor) -> Tensor:
        return iterate + step * direction(gradient)

    return ascend


def unit(vectors: Tensor) -> Tensor:
    """Vectors `[N, C, H, W]` of l_2 norm 1 in the same directions; zero stays zero.

    The largest entry is divided out first: squares of a saturated network's gradient underflow in float32.
    """
    largest = vectors.abs().amax((1, 2, 3), keepdim=True)
    vectors = vectors / largest.where(largest > 0, 1)
    length = vectors.square().sum((1, 2, 3), keepdim=True).sqrt()
    return vectors / length.where(length > 0, 1)
