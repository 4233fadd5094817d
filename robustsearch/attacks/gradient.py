"""The gradient of an objective in the pixels, averaged over the draws of a random model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .objectives import Objective

Classifier = Callable[[Tensor], Tensor]
"""`images [N, C, H, W] -> logits [N, classes]`; may be random."""


def input_gradient(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    objective: Objective,
    *,
    draws: int = 1,
    expand: bool = True,
) -> tuple[Tensor, Tensor]:
    """Gradient `[N, C, H, W]` and value `[N]` of the mean over draws of the objective.

    Expectation over transformation (Athalye et al. 2018, 1802.00420, section 4.2): the mean is that of the
    objectives, 1/K sum_k objective(logits_k), hence of their gradients; not of logits or signs.

    Args:
        model: where it lets no gradient through to the pixels, the gradient is zero.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`.
        objective: what to differentiate.
        draws: K, predictions averaged.
        expand: predict K copies of the batch in one pass, which is faster. A model that draws once per pass,
            for all images alike (noise on weights), shows all copies the same draw: it needs False, K passes.
    """
    passes, copies = (1, draws) if expand else (draws, 1)
    gradient, values = torch.zeros_like(images), images.new_zeros(len(images))
    if not len(images):
        return gradient, values
    # A clone made outside inference mode is an ordinary tensor, whatever the caller's mode and tensors are.
    with torch.inference_mode(False), torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        for _ in range(passes):
            value = _mean_objective(model, pixels, labels, objective, copies)
            values = values + value.detach() / passes
            if value.requires_grad:
                (part,) = torch.autograd.grad(value.sum(), pixels, materialize_grads=True)
                gradient = gradient + part / passes
    return gradient, values


@torch.no_grad()
def objective_values(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    objective: Objective,
    *,
    draws: int = 1,
    expand: bool = True,
) -> Tensor:
    """The values `[N]` of `input_gradient`, without the cost of the gradient."""
    passes, copies = (1, draws) if expand else (draws, 1)
    values = images.new_zeros(len(images))
    if not len(images):
        return values
    for _ in range(passes):
        values = values + _mean_objective(model, images, labels, objective, copies) / passes
    return values


@contextmanager
def crafting(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block, so that batch-norm statistics stay; then each module's own flag again.

    Nor do parameters ask for gradients inside: a pass then keeps only what the gradient in the pixels needs.
    """
    flags = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, training in flags:
            module.training = training


def _mean_objective(model: Classifier, images: Tensor, labels: Tensor, objective: Objective, copies: int) -> Tensor:
    """Mean `[N]` of the objective over copies of the batch that share one pass."""
    logits = model(torch.cat([images] * copies))  # unlike `repeat`, `cat` keeps channels-last images so
    return objective(logits, labels.repeat(copies)).view(copies, -1).mean(0)
