"""Networks built from recipes."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from robustsearch.data import Dataset, to_tensor
from robustsearch.models.build import Network, build_network, network_for
from robustsearch.models.lwta import LWTA
from robustsearch.models.stochastic import surrogate
from robustsearch.recipe import Recipe

Make = Callable[..., Network]


def test_every_parameter_gets_a_gradient(recipe: Recipe, make: Make, images: Tensor) -> None:
    """From the cross-entropy and the KL terms together; and finite."""
    network = make(recipe)
    loss = torch.nn.functional.cross_entropy(network(images), torch.arange(4)) + sum(network.kl().values())
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("context", [nullcontext, surrogate])
def test_an_attack_gets_a_gradient(recipe: Recipe, context: Callable, make: Make, images: Tensor) -> None:
    network, images = make(recipe).eval(), images.clone().requires_grad_()
    with context(network):
        (gradient,) = torch.autograd.grad(network(images).logsumexp(1).sum(), images)
    assert gradient.isfinite().all()
    assert gradient.flatten(1).any(dim=1).all()


@pytest.mark.parametrize("gate", ["mean", "sample"])
@pytest.mark.parametrize("units", [2, 4])
def test_gradient_of_the_surrogate_network_is_exact(gate: str, units: int, make: Make, images: Tensor) -> None:
    """Central differences in float64 along random directions."""
    network = make({"lwta": {"gate": gate, "units": units, "ibp": {}}}).double().eval()
    images = images.double().requires_grad_()

    def loss(images: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(network(images), torch.arange(4), reduction="sum")

    with surrogate(network):
        (gradient,) = torch.autograd.grad(loss(images), images)
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
            difference = (loss(images + 1e-6 * direction) - loss(images - 1e-6 * direction)) / 2e-6
            assert difference.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_the_surrogate_of_lwta_is_the_mean_gate(make: Make, images: Tensor) -> None:
    network = make({"lwta": {"ibp": {}}}).eval()
    with surrogate(network):
        through_surrogate = network(images)
    network.set_gate("mean")
    torch.testing.assert_close(through_surrogate, network(images))


def test_the_seed_alone_decides(recipe: Recipe, images: Tensor) -> None:
    """Parameters, buffers and draws; torch's global generator is neither read nor moved."""
    arguments = {"shape": (3, 8, 8), "classes": 10, "mean": [0.5] * 3, "std": [0.2] * 3}

    def outcome(seed: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        network = build_network(recipe, seed=seed, **arguments)
        trained = network(images)
        return network.state_dict(), trained, network.eval().predict(images, 2 if recipe.is_stochastic else 1)

    before = torch.get_rng_state()
    state, *outputs = outcome(7)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        again, *outputs_again = outcome(7)
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert all(torch.equal(one, other) for one, other in zip(outputs, outputs_again, strict=True))
    other, *outputs_other = outcome(8)
    assert not torch.equal(state["body.stem.weight"], other["body.stem.weight"])
    assert not torch.equal(outputs[0], outputs_other[0])


def test_images_are_normalised_before_the_body(make: Make, images: Tensor) -> None:
    network = make({}).eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))
    torch.testing.assert_close(network(images), network.body((images - mean) / std))


def test_input_noise_is_in_pixel_units(make: Make, images: Tensor) -> None:
    """What the body reads differs from the normalised images by sigma / std of each channel (0.1 / 0.2, .25, .3)."""
    network, seen = make({"smoothing": {"sigma": 0.1}}).eval(), []
    network.body.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(images.repeat(100, 1, 1, 1))
    noise = seen[0] - network.normalise(images).repeat(100, 1, 1, 1)
    assert noise.std(dim=(0, 2, 3)).tolist() == pytest.approx([0.5, 0.4, 1 / 3], rel=0.03)


@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 10), ((1, 28, 28), 10), ((3, 32, 32), 100)])
def test_shapes(shape: tuple[int, int, int], classes: int) -> None:
    recipe = Recipe.of({"model": {"depth": 10}, "lwta": {}, "pni": {"granularity": "element", "where": "activations"}})
    network = build_network(recipe, shape=shape, classes=classes, mean=[0.5] * shape[0], std=[0.2] * shape[0], seed=0)
    assert network(torch.zeros(2, *shape)).shape == (2, classes)


def test_statistics_must_fit_the_channels() -> None:
    with pytest.raises(ValueError, match="`mean` and `std` need a value for each of 3 channels"):
        build_network(Recipe(), shape=(3, 8, 8), classes=10, mean=[0.5], std=[0.2], seed=0)


def test_a_checkpoint_restores_network_and_noise(recipe: Recipe, make: Make, images: Tensor) -> None:
    network, other = make(recipe, seed=1), make(recipe, seed=2)
    network(images)
    other.load_state_dict(network.state_dict())
    other.noise.load_state(network.noise.state())
    assert torch.equal(other(images), network(images))
    draws = 3 if recipe.is_stochastic else 1
    assert torch.equal(other.eval().predict(images, draws), network.eval().predict(images, draws))


def test_parameter_groups(recipe: Recipe, make: Make) -> None:
    """Decay on kernels and the classifier's weight, known by their names; every parameter is in one group once."""
    network = make(recipe)
    groups = [*network.parameter_groups(0.01), {"params": network.block_logits(), "weight_decay": 0.0}]
    chosen = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(chosen) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        decays = re.search(r"(stem|conv1|conv2|shortcut|linear)\.weight$", name)
        assert chosen[id(parameter)] == (0.01 if decays else 0.0), name


def test_kl_is_the_sum_over_all_layers(make: Make, images: Tensor) -> None:
    network, expected = make({"lwta": {"ibp": {}}}), []

    def record(layer: LWTA, inputs: tuple[Tensor], output: Tensor) -> None:
        h = inputs[0].detach().double().unflatten(1, (-1, 2)).numpy()
        q = special.softmax(h, axis=2)
        expected.append((q * np.log(2 * q)).sum(axis=(1, 2)).mean())

    for layer in network.modules():
        if isinstance(layer, LWTA):
            layer.register_forward_hook(record)
    network(images)
    kl = network.kl()
    assert set(kl) == {"gate", "sticks", "z"}
    assert len(expected) == 7
    assert kl["gate"].item() == pytest.approx(sum(expected), rel=1e-5)
    assert all(term.shape == () and term.item() > 0 and term.requires_grad for term in kl.values())


def test_kl_without_terms(make: Make, images: Tensor) -> None:
    assert make({"pni": {}, "smoothing": {}}).kl() == {}
    network = make({"lwta": {}})
    with pytest.raises(RuntimeError, match="forward pass in training mode"):
        network.kl()
    network(images)
    assert set(network.kl()) == {"gate"}


def test_predict_is_the_mean_softmax_over_draws(recipe: Recipe, make: Make, images: Tensor) -> None:
    """From one state of the noise: K passes in turn where draws are made per pass, else K copies of the batch."""
    network, images = make(recipe).double().eval(), images.double()
    state = network.noise.state()
    predicted = network.predict(images, 5)
    network.noise.load_state(state)
    if recipe.pni and recipe.pni.where == "weights":
        logits = torch.stack([network(images) for _ in range(5)])
    else:
        logits = network(torch.cat([images] * 5)).view(5, 4, 10)
    expected = special.softmax(logits.detach().numpy(), axis=2).mean(axis=0)
    np.testing.assert_allclose(predicted.detach(), expected, rtol=1e-9)
    np.testing.assert_allclose(predicted.detach().sum(dim=1), 1, rtol=1e-9)


def test_set_gate_switches_every_layer(make: Make, images: Tensor) -> None:
    network = make({"lwta": {}}).eval()
    network.set_gate("noisy", 0.0)
    as_noisy = network(images)
    network.set_gate("argmax")
    assert torch.equal(as_noisy, network(images))
    network.set_gate("sample")
    assert not torch.equal(network(images), network(images))
    with pytest.raises(ValueError, match="`gate_noise` must"):
        network.set_gate("noisy")
    make({}).set_gate("mean")


def test_blocks_kept(make: Make) -> None:
    """Blocks of the seven activations: 8, 8, 8, 16, 16, 32, 32."""
    network = make({"lwta": {"ibp": {"cutoff": 0.5}}})
    assert network.blocks_kept() == 1
    network.body.blocks[0].activation1.ibp.t.data[:3] = -0.1
    network.body.activation.ibp.t.data[:] = -5
    assert network.blocks_kept() == pytest.approx(1 - 35 / 120)
    assert make({"lwta": {}}).blocks_kept() is None
    assert make({}).blocks_kept() is None


@pytest.mark.parametrize("units", [2, 4, 8])
def test_gates_pass_one_part_of_signal_to_units_less_one_of_noise(units: int) -> None:
    """Monte Carlo of `_start_without_branches`' count: equal chances, two draws of winners over the same features."""
    rng = np.random.default_rng(0)
    h = rng.standard_normal(4_000_000)
    first, second = (h * (rng.integers(units, size=h.size) == 0) for _ in range(2))
    signal = np.mean(first * second)  # draws are independent given h
    assert signal == pytest.approx(1 / units**2, rel=0.05)
    assert (np.mean(first**2) - signal) / signal == pytest.approx(units - 1, rel=0.05)


@pytest.mark.parametrize(("units", "least"), [(2, 0.3), (4, 0.2)])
@pytest.mark.parametrize("ibp", [None, {}])
def test_features_of_a_new_deep_network_come_from_the_images(
    units: int, least: float, ibp: dict | None, digits: Dataset
) -> None:
    """Correlation of the last block's features between two draws, WRN-34-1 in training: 1 is without noise.

    With He's weights in every branch it is below 0.1; so the same network is measured with those, too.
    """
    recipe = Recipe.of({"lwta": {"units": units, "ibp": ibp}})
    network = network_for(recipe, digits, seed=0)
    images = to_tensor(digits.train.images, "cpu")
    assert least < _correlation(network, images) < 1
    generator = torch.Generator().manual_seed(0)
    for block in network.body.blocks:
        torch.nn.init.kaiming_normal_(block.conv2.weight, mode="fan_out", generator=generator)
    assert _correlation(network, images) < 0.2


@torch.no_grad()
def _correlation(network: Network, images: Tensor) -> float:
    body = network.body
    stem = body.stem(network.normalise(images))
    first, second = (body.bn(body.blocks(stem)).transpose(0, 1).flatten(1) for _ in range(2))
    first, second = (draw - draw.mean(dim=1, keepdim=True) for draw in (first, second))
    return float((first * second).sum() / (first.norm() * second.norm()))


def test_relu_branches_keep_their_weights() -> None:
    network = build_network(Recipe(), shape=(1, 8, 8), classes=10, mean=(0.5,), std=(0.3,), seed=0)
    assert all(block.conv2.weight.any() for block in network.body.blocks)
