"""What is PNI's own, beside `test_conformance.py`: w~ = w + alpha * sigma * eta, draw by draw. Level 1e-4."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from robustsearch.models.pni import PNIConv2d, PNILinear
from robustsearch.models.stochastic import Noise

LEVEL = 1e-4
EYE = torch.eye(30)


def linear(where: str = "weights", granularity: str = "layer", alpha: float = 0.25, **settings: Any) -> PNILinear:
    """30 features to 20; of the identity matrix its output is the transposed weight it has used."""
    layer = PNILinear(30, 20, where=where, granularity=granularity, alpha=alpha, noise=Noise(0), **settings)
    layer.bias.data.zero_()
    layer.weight.data = torch.randn(20, 30, generator=torch.Generator().manual_seed(3)) + 1.0
    return layer


def test_each_weight_and_pass_has_a_draw_of_its_own() -> None:
    """All the noise of 30 passes is one normal sample, of alpha times the standard deviation of the whole weight."""
    layer = linear()
    weight = layer.weight.detach().numpy()
    noise = [layer(EYE).T.detach().numpy() - weight for _ in range(30)]
    eta = np.stack(noise) / (0.25 * weight.std(ddof=1))
    assert stats.kstest(eta.ravel(), "norm").pvalue > LEVEL


def test_each_input_of_each_image_has_a_draw_of_its_own() -> None:
    """Seen through a convolution that is the identity."""
    layer = PNIConv2d(3, 3, 3, padding=1, where="inputs", granularity="layer", alpha=0.25, size=(6, 5), noise=Noise(0))
    torch.nn.init.dirac_(layer.weight)
    x = 3 * torch.randn(100, 3, 6, 5, generator=torch.Generator().manual_seed(5)) + 2
    eta = (layer(x).detach() - x).numpy() / (0.25 * x.numpy().std(ddof=1))
    assert stats.kstest(eta.ravel(), "norm").pvalue > LEVEL


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


@pytest.mark.parametrize("where", ["weights", "inputs", "activations"])
def test_the_mean_gradient_to_alpha_is_that_of_the_expected_loss(where: str) -> None:
    """For the loss |y - t|^2 / 2 of a linear layer, E = const + c alpha^2 / 2, so dE / d alpha = c alpha; z-test.

    With x one image, c is sigma^2 times |x|^2 for each output (weights), |W|^2 (inputs), or 1 for each output.
    """
    layer, x, target = linear(where), torch.linspace(-1, 2, 30)[None], torch.linspace(-3, 3, 20)[None]
    weight, features = layer.weight.detach().double().numpy(), x.double().numpy()
    perturbed = {"weights": weight, "inputs": features, "activations": features @ weight.T}[where]
    size = {"weights": 20 * (features**2).sum(), "inputs": (weight**2).sum(), "activations": 20.0}[where]
    gradients = []
    for _ in range(1000):
        loss = (layer(x) - target).square().sum() / 2
        gradients.append(torch.autograd.grad(loss, layer.alpha)[0].item())
    expected = 0.25 * perturbed.var(ddof=1) * size
    error = np.std(gradients) / np.sqrt(len(gradients))
    assert abs(np.mean(gradients) - expected) < stats.norm.isf(LEVEL / 2) * error
    assert expected > 4 * error, "nothing to see in so few draws"


def test_a_fixed_sigma_replaces_the_std_of_the_tensor() -> None:
    layer = linear()
    layer.sigma = torch.tensor(100.0)
    noise = layer(EYE).T - layer.weight
    assert noise.std().item() == pytest.approx(25, rel=0.2)
