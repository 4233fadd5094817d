"""The deployed form: the same law as the network, with fewer parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from robustsearch.models.build import Network
from robustsearch.models.deploy import deploy
from robustsearch.models.ibp import BlockPrior
from robustsearch.models.pni import PNIConv2d, PNILayer, PNILinear
from robustsearch.models.stochastic import is_random
from robustsearch.recipe import Recipe

Make = Callable[..., Network]
DETERMINISTIC = {"mean": None, "argmax": None, "noisy": 0.0}
REMOVED = {
    "none": {},
    "some": {"": slice(0, None, 2)},
    "all-but-one": {"": slice(1, None)},
    "first-activation": {"blocks.0.activation1": slice(None)},
    "second-activation": {"blocks.0.activation2": slice(None)},
    "whole-block": {"blocks.0": slice(None)},
    "before-shortcut": {"blocks.1.activation1": slice(None)},
    "shortcut-alone": {"blocks.1.activation2": slice(None)},
    "strided-block": {"blocks.2": slice(None)},
    "all-blocks": {"blocks": slice(None)},
    "head": {"activation": slice(None)},
    "everything": {"": slice(None)},
}
"""Name to {prefix of the layers: LWTA blocks that fall below the cut-off}."""


def remove(network: Network, removed: dict[str, slice]) -> Network:
    """Push blocks of a network far below the cut-off, the others to different z; then scale its logits.

    They get mean 0 and standard deviation 1 over images and draws, so that probabilities differ between both.
    """
    for name, prior in network.body.named_modules():
        if isinstance(prior, BlockPrior):
            prior.t.data = torch.linspace(-1, 3, len(prior.t))
            for prefix, blocks in removed.items():
                if name.startswith(prefix):
                    prior.t.data[blocks] = -8
    network.eval()
    with torch.no_grad():
        logits = network(torch.rand(256, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    linear = network.body.linear
    scale = 1 / (logits - logits.mean(dim=0)).std().clamp_min(1e-3)
    linear.weight.data *= scale
    linear.bias.data = scale * (linear.bias.data - logits.mean(dim=0))
    return network


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("units", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("gate", DETERMINISTIC)
@pytest.mark.parametrize("pattern", REMOVED)
def test_pruned_network_equals_the_masked_one(pattern: str, gate: str, units: int, make: Make, images: Tensor) -> None:
    fields = {"lwta": {"units": units, "gate": gate, "gate_noise": DETERMINISTIC[gate], "ibp": {}}}
    network = remove(make(fields), REMOVED[pattern])
    if gate != "mean":  # a rounding in float32 can change a winner
        network, images = network.double(), images.double()
    deployed = deploy(network, 1)
    assert not is_random(deployed)
    torch.testing.assert_close(deployed(images), network.predict(images, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(deployed(images[:1]), network.predict(images[:1], 1), rtol=0, atol=1e-5)
    assert count(deployed) < count(network)


def test_the_masked_network_depends_on_its_images(make: Make, images: Tensor) -> None:
    """Or the equality above would show little."""
    network = remove(make({"lwta": {"gate": "mean", "ibp": {}}}), REMOVED["some"])
    probabilities = network.predict(images, 1)
    assert probabilities.std(dim=0).median() > 0.01


def test_number_of_parameters_with_half_the_blocks(make: Make) -> None:
    """WRN-10-1 with half of each activation's channels; conv1 has a bias, from the batch norm folded into it."""
    network = remove(make({"lwta": {"ibp": {}}}), REMOVED["some"])
    expected = 9 * 3 * 16
    for before, width in ((16, 16), (16, 32), (32, 64)):
        first, second = before // 2, width // 2
        expected += 2 * first + 9 * first * second + second + 9 * second * width + (before != width) * first * width
    assert count(deploy(network, 1)) == expected + 2 * 32 + 32 * 10 + 10


def test_relu_network_with_folded_batch_norm(make: Make, images: Tensor) -> None:
    network = make({}).eval()
    deployed = deploy(network, 1)
    torch.testing.assert_close(deployed(images), network.predict(images, 1), rtol=0, atol=1e-5)
    batch_norms = [layer for layer in deployed.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(batch_norms) == 4  # the first of each block, and the last
    assert count(deployed) == count(network) - 16 - 32 - 64


def test_the_copy_is_independent(make: Make, images: Tensor) -> None:
    network = remove(make({"lwta": {"ibp": {}}}), REMOVED["some"]).train()
    network(images)  # a graph of KL terms is no obstacle
    state, noise = {name: t.clone() for name, t in network.state_dict().items()}, network.noise.state()
    deployed = deploy(network, 3)
    deployed(images)
    assert network.training
    assert not any(layer.training for layer in deployed.modules())
    assert not any(parameter.requires_grad for parameter in deployed.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(t, state[name]) for name, t in network.state_dict().items())
    assert all(torch.equal(stream, noise[name]) for name, stream in network.noise.state().items())
    network.set_gate("mean")
    for parameter in network.parameters():
        parameter.data.zero_()
    assert is_random(deployed)
    assert (deployed(images)[0] - 0.1).abs().max() > 0.01


LAWS: dict[str, tuple[dict[str, Any], str]] = {
    "sample": ({"lwta": {}}, "none"),
    "sample-4-ibp": ({"lwta": {"units": 4, "ibp": {}}}, "some"),
    "sample-first": ({"lwta": {"ibp": {}}}, "first-activation"),
    "sample-strided": ({"lwta": {"ibp": {}}}, "before-shortcut"),
    "sample-second": ({"lwta": {"ibp": {}}}, "second-activation"),
    "noisy": ({"lwta": {"gate": "noisy", "gate_noise": 0.3, "ibp": {}}}, "some"),
    "smoothing": ({"lwta": {"gate": "mean", "ibp": {}}, "smoothing": {"sigma": 0.3}}, "some"),
    "pni-weights": ({"pni": {"alpha": 1.0}}, "none"),
    "pni-weights-channel": (
        {"lwta": {"gate": "argmax", "ibp": {}}, "pni": {"granularity": "channel", "alpha": 1.0}},
        "some",
    ),
    "pni-weights-element": ({"lwta": {"ibp": {}}, "pni": {"granularity": "element", "alpha": 1.0}}, "some"),
    "pni-inputs": ({"lwta": {"gate": "mean", "ibp": {}}, "pni": {"where": "inputs"}}, "some"),
    "pni-activations": ({"lwta": {"ibp": {}}, "pni": {"where": "activations"}}, "some"),
}


laws = pytest.mark.parametrize(
    "case", [case if case in ("sample", "smoothing") else pytest.param(case, marks=pytest.mark.slow) for case in LAWS]
)


def prepared(case: str, make: Make) -> Network:
    """The network of a case; its alphas, if any, differ from place to place, so that a wrong cut would show."""
    fields, pattern = LAWS[case]
    network = make(fields)
    for name, alpha in network.named_parameters():
        if name.endswith("alpha"):
            alpha.data.uniform_(0.2, 1.5, generator=torch.Generator().manual_seed(len(name)))
    return remove(network, REMOVED[pattern])


def sample(predict: Callable[[Tensor], Tensor], images: Tensor, case: str) -> Tensor:
    """Probabilities `[draws, N, classes]`: draws are passes where weights are drawn, else images of one batch."""
    with torch.no_grad():
        if case.startswith("pni-weights"):
            return torch.stack([predict(images) for _ in range(250)])
        return predict(images.repeat(1500, 1, 1, 1)).view(1500, len(images), 10)


@laws
def test_law_of_the_output(case: str, make: Make, images: Tensor) -> None:
    """Kolmogorov-Smirnov between network and deployed form for each image and class; level 1e-3 for all together."""
    network, images = prepared(case, make), images[:2]
    ours = sample(lambda x: network(x).softmax(1), images, case).flatten(1).numpy()
    theirs = sample(deploy(network, 1), images, case).flatten(1).numpy()
    assert np.median(ours.std(axis=0)) > 0.01, "nothing random to compare"
    for column in range(20):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3 / 20


@laws
def test_draws_are_averaged(case: str, make: Make, images: Tensor) -> None:
    """The mean over many draws agrees with the network's: within 5 standard errors, for each image and class."""
    network, images, draws = prepared(case, make), images[:2], 200
    singles = sample(lambda x: network(x).softmax(1), images, case)
    mean = deploy(network, draws)(images)
    error = singles.std(dim=0) * (1 / draws + 1 / len(singles)) ** 0.5
    assert mean.shape == (2, 10)
    assert ((mean - singles.mean(dim=0)).abs() <= 5 * error).all()
    assert mean.sum(dim=1).tolist() == pytest.approx([1, 1], rel=1e-5)


@pytest.mark.parametrize("granularity", ["layer", "channel", "element"])
@pytest.mark.parametrize("pattern", REMOVED)
def test_pruned_network_with_noise_on_weights(pattern: str, granularity: str, make: Make, images: Tensor) -> None:
    """Equal where alpha is 0; sigma stays that of the whole weight; and fewer parameters, alpha among them."""
    fields = {"lwta": {"gate": "mean", "ibp": {}}, "pni": {"granularity": granularity, "alpha": 0.0}}
    network = remove(make(fields), REMOVED[pattern])
    deployed = deploy(network, 2)
    torch.testing.assert_close(deployed(images), network.predict(images, 1), rtol=0, atol=1e-5)
    assert count(deployed) < count(network) or pattern == "none"
    whole = {layer.weight.std().item() for layer in network.modules() if isinstance(layer, PNIConv2d | PNILinear)}
    assert all(layer.sigma.item() in whole for layer in deployed.modules() if isinstance(layer, PNILayer))


def test_alphas_are_cut_as_their_weights_are(make: Make) -> None:
    network = remove(make({"lwta": {"ibp": {}}, "pni": {"granularity": "element"}}), REMOVED["some"])
    for layer in network.modules():
        if isinstance(layer, PNIConv2d | PNILinear):
            layer.alpha.data = layer.weight.data.clone()
    layers = [layer for layer in deploy(network, 1).modules() if isinstance(layer, PNIConv2d | PNILinear)]
    assert len(layers) == 10
    for layer in layers:
        assert torch.equal(layer.alpha, layer.weight)


@pytest.mark.parametrize("where", ["inputs", "activations"])
def test_noise_on_features_keeps_the_network_masked(where: str, make: Make, images: Tensor) -> None:
    network = remove(make({"lwta": {"gate": "mean", "ibp": {}}, "pni": {"where": where}}), REMOVED["some"])
    deployed = deploy(network, 1)
    assert count(deployed) == count(network)
    torch.testing.assert_close(deployed(images), network.predict(images, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "stem", "head"),
    [
        ({}, [4], [4]),
        ({"lwta": {"gate": "mean"}}, [4], [4]),
        ({"lwta": {}}, [4], [28]),
        ({"smoothing": {}}, [28], [28]),
        ({"pni": {"where": "activations"}}, [28], [28]),
        ({"pni": {}}, [4] * 7, [4] * 7),
    ],
)
def test_draws_share_what_comes_before_the_first_of_them(
    fields: dict[str, Any], stem: list[int], head: list[int], make: Make, images: Tensor
) -> None:
    """Batch sizes that the stem and the classifier see, for four images and seven draws."""
    deployed = deploy(make(fields), 7)
    layers = [layer for layer in deployed.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    seen: tuple[list[int], list[int]] = ([], [])
    for layer, sizes in zip((layers[0], layers[-1]), seen, strict=True):
        layer.register_forward_hook(lambda module, inputs, output, sizes=sizes: sizes.append(len(output)))
    assert deployed(images).shape == (4, 10)
    assert seen == (stem, head)


def test_every_recipe_deploys(recipe: Recipe, make: Make, images: Tensor) -> None:
    network = make(recipe).eval()
    deployed = deploy(network, 2 if recipe.is_stochastic else 1)
    assert is_random(deployed) == recipe.is_stochastic
    probabilities = deployed(images)
    assert torch.isfinite(probabilities).all()
    assert torch.equal(probabilities, deployed(images)) == (not recipe.is_stochastic)


def test_draws_must_be_positive(make: Make) -> None:
    with pytest.raises(ValueError, match="`draws` must be at least 1"):
        deploy(make({}), 0)
