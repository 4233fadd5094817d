"""What the stochastic layers of a network do, as plain arrays: for people to look at while it trains."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..recipe import gate_of
from .ibp import BlockPrior
from .lwta import LWTA
from .pni import PNILayer

Arrays = dict[str, NDArray[np.float32]]


@torch.no_grad()
def describe(network: nn.Module, images: Tensor) -> Arrays:
    """What each layer does with images `[N, C, H, W]`: "WHAT/LAYER" to an array, a scalar where it has no axes.

    gate_usage         `[B, U]`: the probability that each unit of a block wins, over images and pixels; sums to 1 in U
    winner_entropy     how open the winner is, given image and pixel: mean entropy over log U; 0 for gate `argmax`
    block_probability  `[B]`: posterior probability of each block under the IBP prior, before its cut-off
    pni_alpha          mean of the absolute alpha, in standard deviations of what is perturbed

    One pass of a network in evaluation mode, whose layers draw from their noise as in any other.
    """
    found: Arrays = {}
    hooks = []
    for path, layer in network.named_modules():
        name = path.removeprefix("body.")
        if isinstance(layer, LWTA):
            hooks.append(layer.register_forward_pre_hook(partial(_describe_gate, found, name)))
        elif isinstance(layer, BlockPrior):
            found[f"block_probability/{name.removesuffix('.ibp')}"] = _array(torch.sigmoid(layer.t))
        elif isinstance(layer, PNILayer):
            found[f"pni_alpha/{name}"] = _array(layer.alpha.abs().mean())
    try:
        if hooks:
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def win_probabilities(layer: LWTA, h: Tensor) -> Tensor:
    """Probability that each unit wins, `[N, B, U, ...]`, for logits `[N, B*U, ...]`; of gate `mean` its weights.

    argmax(h + s G) with Gumbel noise G has the law softmax(h / s), which tends to the one-hot maximum as s does to 0.
    """
    blocks = h.view(h.shape[0], layer.blocks, layer.units, *h.shape[2:])
    gate = gate_of(layer.gate, layer.gate_noise)
    if scale := gate.noise or gate.temperature:
        return torch.softmax(blocks.float() / scale, dim=2)
    winner = blocks.max(dim=2, keepdim=True).indices
    return torch.zeros_like(blocks, dtype=torch.float32).scatter_(2, winner, 1.0)


def _describe_gate(found: Arrays, name: str, layer: LWTA, inputs: tuple[Tensor, ...]) -> None:
    chances = win_probabilities(layer, inputs[0])
    found[f"gate_usage/{name}"] = _array(chances.transpose(0, 2).flatten(2).mean(dim=2).T)
    entropy = torch.special.entr(chances).sum(dim=2).mean()
    found[f"winner_entropy/{name}"] = _array(entropy / math.log(layer.units))


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().cpu().numpy()
    return array
