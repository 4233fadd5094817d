"""What is said of layers: win probabilities against counting draws, and no trace left in the network."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, entropy
from torch import Tensor

from robustsearch.models.build import Network
from robustsearch.models.inspect import describe, win_probabilities
from robustsearch.models.lwta import LWTA
from robustsearch.models.pni import PNILayer
from robustsearch.models.stochastic import Noise


def layer(units: int, gate: str, gate_noise: float | None = None) -> LWTA:
    made = LWTA(8, units, temperature=0.67, gate=gate, gate_noise=gate_noise, noise=Noise(0), ibp=None)
    return made.eval()


@pytest.mark.parametrize("units", [2, 4])
@pytest.mark.parametrize(("gate", "scale"), [("sample", None), ("noisy", 0.5), ("noisy", 3.0)])
def test_win_probabilities_are_how_often_a_unit_wins(units: int, gate: str, scale: float | None) -> None:
    """Winners of 20,000 draws; p below 1e-4 in any of the blocks fails, one block in a thousand tests of 8."""
    made = layer(units, gate, scale)
    h = torch.randn(1, 8, generator=torch.Generator().manual_seed(units)) + 0.01
    draws = 20_000
    won = (made(h.repeat(draws, 1)) != 0).view(draws, -1, units).sum(dim=0)
    chances = win_probabilities(made, h)[0]
    for counts, chance in zip(won.numpy(), chances.double().numpy(), strict=True):
        assert chisquare(counts, draws * chance / chance.sum()).pvalue > 1e-4


@pytest.mark.parametrize(("gate", "scale"), [("argmax", None), ("noisy", 0.0), ("mean", None)])
def test_without_noise_they_are_the_gate(gate: str, scale: float | None) -> None:
    made = layer(4, gate, scale)
    h = torch.randn(3, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = made(h).view(3, 2, 4, 5, 5) / h.view(3, 2, 4, 5, 5)
    torch.testing.assert_close(win_probabilities(made, h), expected)


def test_usage_and_entropy_are_means_over_images_and_pixels(make: Callable[..., Network], images: Tensor) -> None:
    network = make({"lwta": {"units": 4, "gate": "mean"}}).eval()
    seen = {}
    final = network.body.activation
    final.register_forward_pre_hook(lambda _, inputs: seen.update(h=inputs[0]))
    found = describe(network, images)
    h = seen["h"].detach().numpy()
    blocks = h.reshape(len(h), -1, 4, *h.shape[2:])
    q = np.exp(blocks) / np.exp(blocks).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(found["gate_usage/activation"], q.mean(axis=(0, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(found["winner_entropy/activation"], entropy(q, base=4, axis=2).mean(), rtol=1e-5)
    assert sum(name.startswith("gate_usage/") for name in found) == sum(
        isinstance(one, LWTA) for one in network.modules()
    )


def test_alphas_and_block_probabilities(make: Callable[..., Network], images: Tensor) -> None:
    network = make({"lwta": {"ibp": {}}, "pni": {"granularity": "channel"}}).eval()
    last = [one for one in network.modules() if isinstance(one, PNILayer)][-1]
    with torch.no_grad():
        last.alpha.copy_(torch.linspace(-1, 1, last.alpha.numel()).view(last.alpha.shape))
        network.body.activation.ibp.t.fill_(0.0)
    found = describe(network, images)
    assert float(found["pni_alpha/linear"]) == pytest.approx(np.abs(np.linspace(-1, 1, last.alpha.numel())).mean())
    assert found["block_probability/activation"].tolist() == [0.5] * 32
    assert float(found["pni_alpha/stem"]) == 0.25


def test_a_plain_network_has_nothing_to_describe(make: Callable[..., Network], images: Tensor) -> None:
    assert describe(make({}).eval(), images) == {}


def test_the_network_is_left_as_it_was(make: Callable[..., Network], images: Tensor) -> None:
    network = make({"lwta": {"ibp": {}}, "pni": {}}).eval()
    before = copy.deepcopy(network.state_dict())
    describe(network, images)
    assert not any(one._forward_pre_hooks for one in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
