"""Parametric noise injection against its definition: w~ = w + alpha * sigma * eta."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from robustsearch.models.pni import PNIConv2d, PNILinear
from robustsearch.models.stochastic import Noise, mean_network, surrogate

LEVEL = 1e-4
EYE = torch.eye(30)


def linear(where: str = "weights", granularity: str = "layer", alpha: float = 0.25, **settings: Any) -> PNILinear:
    """30 features to 20; of the identity matrix its output is the transposed weight it has used."""
    layer = PNILinear(30, 20, where=where, granularity=granularity, alpha=alpha, noise=Noise(0), **settings)
    layer.bias.data.zero_()
    layer.weight.data = torch.randn(20, 30, generator=torch.Generator().manual_seed(3)) + 1.0
    return layer


def convolution(where: str, granularity: str = "layer", alpha: float = 0.25) -> PNIConv2d:
    """Three channels to three, kernel 3, that without noise is the identity."""
    layer = PNIConv2d(
        3, 3, 3, padding=1, where=where, granularity=granularity, alpha=alpha, size=(6, 5), noise=Noise(0)
    )
    torch.nn.init.dirac_(layer.weight)
    return layer


def batch(n: int) -> Tensor:
    return 3 * torch.randn(n, 3, 6, 5, generator=torch.Generator().manual_seed(5)) + 2


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("context", [None, surrogate])
def test_weight_noise_is_normal_with_alpha_times_std_of_the_whole_weight(training: bool, context: Any) -> None:
    layer = linear().train(training)
    weight = layer.weight.detach().numpy()
    noise = []
    for _ in range(30):
        if context is None:
            noise.append(layer(EYE).T.detach().numpy() - weight)
        else:
            with context(layer):
                noise.append(layer(EYE).T.detach().numpy() - weight)
    eta = np.stack(noise) / (0.25 * weight.std(ddof=1))
    assert stats.kstest(eta.ravel(), "norm").pvalue > LEVEL


def test_weight_noise_of_a_convolution() -> None:
    """Of an image that is 1 at one pixel and channel, the output is the kernel that was used."""
    layer = PNIConv2d(3, 40, 3, padding=1, where="weights", granularity="layer", alpha=0.5, size=(3, 3), noise=Noise(0))
    x = torch.zeros(3, 3, 3, 3)
    x[range(3), range(3), 1, 1] = 1
    used = layer(x).detach().flip(2, 3).transpose(0, 1)
    eta = (used - layer.weight.detach()).numpy() / (0.5 * layer.weight.detach().numpy().std(ddof=1))
    assert stats.kstest(eta.ravel(), "norm").pvalue > LEVEL


@pytest.mark.parametrize("where", ["inputs", "activations"])
def test_feature_noise_is_normal_with_alpha_times_std_of_the_tensor(where: str) -> None:
    layer, x = convolution(where).eval(), batch(100)
    eta = (layer(x).detach() - x).numpy() / (0.25 * x.numpy().std(ddof=1))
    assert stats.kstest(eta.ravel(), "norm").pvalue > LEVEL


def test_noise_enters_where_it_should() -> None:
    """With the weight at 0 and a bias, only noise on the activations is left: the others scale with the weight."""
    x = batch(2).flatten(1)[:, :30]
    for where, seen in {"inputs": False, "weights": False, "activations": True}.items():
        layer = linear(where)
        layer.weight.data.zero_()
        layer.bias.data = torch.arange(20.0)
        assert (
            (layer(x) - layer.bias).abs().max().item() > 0.1
            if seen
            else torch.equal(layer(x), layer.bias.expand(2, -1))
        )


@pytest.mark.parametrize("where", ["weights", "inputs", "activations"])
def test_scope_of_a_draw(where: str) -> None:
    """Two equal images share the weights of a pass, but not noise on features; two passes never share a draw."""
    layer, x = convolution(where), batch(1).repeat(2, 1, 1, 1)
    first, second = layer(x)
    assert torch.allclose(first, second) == (where == "weights") == (layer.scope == "forward")
    assert not torch.allclose(layer(x), layer(x))


@pytest.mark.parametrize("where", ["weights", "inputs", "activations"])
def test_mean_network_has_no_noise(where: str) -> None:
    layer, x = convolution(where), batch(2)
    assert layer.random
    with mean_network(layer):
        assert not layer.random
        torch.testing.assert_close(layer(x), x)


@pytest.mark.parametrize(
    ("where", "granularity", "shape"),
    [
        ("weights", "layer", (1,)),
        ("weights", "channel", (8, 1, 1, 1)),
        ("weights", "element", (8, 4, 3, 3)),
        ("inputs", "layer", (1,)),
        ("inputs", "channel", (4, 1, 1)),
        ("inputs", "element", (4, 7, 6)),
        ("activations", "layer", (1,)),
        ("activations", "channel", (8, 1, 1)),
        ("activations", "element", (8, 4, 3)),
    ],
)
def test_granularity_of_alpha(where: str, granularity: str, shape: tuple[int, ...]) -> None:
    """Shape of alpha; and a noise that is on for one alpha only moves what that alpha covers."""
    layer = PNIConv2d(
        4,
        8,
        3,
        stride=2,
        padding=1,
        where=where,
        granularity=granularity,
        alpha=0.3,
        size=(7, 6),
        noise=Noise(0),
    )
    assert layer.alpha.shape == shape
    assert (layer.alpha == 0.3).all()
    layer.alpha.data.zero_()
    layer.alpha.data.view(-1)[-1] = 0.3
    x = torch.randn(1, 4, 7, 6)
    tensor = {"weights": layer.weight, "inputs": x, "activations": layer(x)}[where]
    moved = (layer.perturb(where, tensor) != tensor).view(*([1] if where == "weights" else []), *tensor.shape)[0]
    expected = (layer.alpha != 0).expand(tensor.shape[-moved.dim() :])
    assert torch.equal(moved, expected)
    assert layer(x).shape == (1, 8, 4, 3)


@pytest.mark.parametrize(
    ("where", "granularity", "shape"),
    [
        ("weights", "channel", (20, 1)),
        ("weights", "element", (20, 30)),
        ("inputs", "channel", (30,)),
        ("inputs", "element", (30,)),
        ("activations", "channel", (20,)),
        ("activations", "layer", (1,)),
    ],
)
def test_granularity_of_alpha_in_a_linear_layer(where: str, granularity: str, shape: tuple[int, ...]) -> None:
    layer = linear(where, granularity)
    assert layer.alpha.shape == shape
    assert layer(EYE).shape == (30, 20)


@pytest.mark.parametrize("where", ["weights", "inputs", "activations"])
def test_gradient_to_alpha_but_not_through_sigma(where: str) -> None:
    """D y / d alpha is the noise over alpha; the gradient to the perturbed tensor is that of the noise-free sum."""
    layer, x = linear(where), EYE.clone().requires_grad_()
    y = layer(x)
    noise = (y - x @ layer.weight.T).detach()
    gradient, to_weight, to_x = torch.autograd.grad(y.sum(), (layer.alpha, layer.weight, x))
    torch.testing.assert_close(gradient, noise.sum().view(1) / 0.25, rtol=1e-3, atol=1e-3)
    if where == "weights":
        torch.testing.assert_close(to_weight, torch.ones(20, 30))
    else:
        torch.testing.assert_close(to_x, layer.weight.sum(dim=0).expand(30, -1))


def test_a_fixed_sigma_replaces_the_std_of_the_tensor() -> None:
    layer = linear()
    layer.sigma = torch.tensor(100.0)
    noise = layer(EYE).T - layer.weight
    assert noise.std().item() == pytest.approx(25, rel=0.2)
