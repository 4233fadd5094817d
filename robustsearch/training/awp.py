"""Adversarial weight perturbation (Wu, Xia & Wang, NeurIPS 2020, 2004.05884)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def perturbed_weights(network: nn.Module, loss: Callable[[], Tensor], gamma: float) -> Iterator[None]:
    """Context in which the weights are w + v, the worse ones; after it they are w again, bit for bit.

    One step of ascent on the loss (eqs. 8 and 9 with one step): v = gamma ||w|| g / ||g||, g the gradient of the loss
    with respect to w, for the weights w of each convolution and linear layer. Biases, batch norms and the scale of
    injected noise stay, as published.

    The gradient of an objective, taken inside the context, is that at w + v; the optimiser steps outside, from w. The
    published code steps from w + v and subtracts v afterwards, which differs in one thing alone: its weight decay is
    that of w + v. The ascent is made in training mode, in the published code on a copy of the network; so here it
    leaves the batch-norm statistics as they were, and a training step moves them once.

    Args:
        network: in training mode.
        loss: the scalar to ascend; runs the network once, with a draw of its own where that is random.
        gamma: size of v as a share of the norm of w; published 0.01 with cross-entropy and 0.005 with TRADES.
    """
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    kept = [weight.detach().clone() for weight in weights]
    statistics = [(buffer, buffer.clone()) for buffer in network.buffers()]
    gradients = torch.autograd.grad(loss(), weights)
    with torch.no_grad():
        for buffer, before in statistics:
            buffer.copy_(before)
        for weight, gradient in zip(weights, gradients, strict=True):
            length = gradient.norm()
            weight.add_(gradient * (gamma * weight.norm() / length.where(length > 0, 1)))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
