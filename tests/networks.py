"""Small networks for the tests of `models` and `engines`, and fixtures that make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustsearch.models.build import Network, build_network
from robustsearch.recipe import Recipe

IBP = {"ibp": {"alpha": 2.0}}
RECIPES: dict[str, dict[str, Any]] = {
    "relu": {},
    "lwta": {"lwta": {}},
    "lwta-4": {"lwta": {"units": 4}},
    "lwta-16": {"lwta": {"units": 16}},
    "lwta-mean": {"lwta": {"gate": "mean"}},
    "lwta-argmax": {"lwta": {"gate": "argmax"}},
    "lwta-noisy": {"lwta": {"gate": "noisy", "gate_noise": 0.5}},
    "lwta-noisy-0": {"lwta": {"gate": "noisy", "gate_noise": 0.0}},
    "ibp": {"lwta": IBP},
    "ibp-4": {"lwta": {"units": 4, **IBP}},
    "ibp-mean": {"lwta": {"gate": "mean", **IBP}},
    "smoothing": {"smoothing": {}},
    "smoothing-training": {"smoothing": {"at_inference": False}},
    **{
        f"pni-{where}-{granularity}": {"pni": {"where": where, "granularity": granularity}}
        for where in ("weights", "inputs", "activations")
        for granularity in ("layer", "channel", "element")
    },
    "ibp-pni-weights": {"lwta": IBP, "pni": {"where": "weights"}},
    "ibp-pni-inputs": {"lwta": IBP, "pni": {"where": "inputs"}},
    "all": {"lwta": IBP, "pni": {"granularity": "element"}, "smoothing": {}},
}
"""Every stochastic part, alone and together."""


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """Each recipe of the grid, at depth 10."""
    return small(RECIPES[request.param])


def small(fields: dict[str, Any]) -> Recipe:
    return Recipe.of({"model": {"depth": 10}, **fields})


def build(recipe: Recipe, seed: int = 0) -> Network:
    """A network for RGB images of 8x8, whose batch norms and branches have weights as after some training."""
    network = build_network(recipe, shape=(3, 8, 8), classes=10, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for bn in network.modules():
        if isinstance(bn, nn.BatchNorm2d):
            for tensor in (bn.running_mean, bn.bias.data):
                tensor.normal_(0, 0.3, generator=generator)
            for tensor in (bn.running_var, bn.weight.data):
                tensor.uniform_(0.7, 1.5, generator=generator)
    for block in network.body.blocks:
        if not block.conv2.weight.any():  # as with LWTA
            weight = torch.empty(block.conv2.weight.shape)  # filled in the order of its indices, not of memory
            block.conv2.weight.data.copy_(nn.init.kaiming_normal_(weight, mode="fan_out", generator=generator))
    return network


@pytest.fixture
def make() -> Callable[..., Network]:
    """`make(fields, seed=0)`: the network of a recipe given as nested fields, or of a recipe itself."""

    def make(recipe: Recipe | dict[str, Any], seed: int = 0) -> Network:
        return build(recipe if isinstance(recipe, Recipe) else small(recipe), seed)

    return make


@pytest.fixture
def images() -> Tensor:
    """Four images `[4, 3, 8, 8]` in [0, 1]."""
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
