"""WideResNet against the paper's numbers, a count in closed form and a functional re-implementation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from robustsearch.models.wrn import BatchNorm, WideResNet


def parameters(depth: int, w: int, classes: int, channels: int) -> int:
    """Parameters of a WideResNet, added up from the paper's table 1."""
    n, total, before = (depth - 4) // 6, 9 * channels * 16, 16
    for width in (16 * w, 32 * w, 64 * w):
        changes = before != width
        total += 2 * before + 9 * before * width + 2 * width + 9 * width**2 + changes * before * width
        total += (n - 1) * (4 * width + 18 * width**2)
        before = width
    return total + 2 * before + before * classes + classes


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_wrn_34_1_has_the_published_number_of_parameters() -> None:
    assert count(WideResNet(34, 1, 10, 3)) == 466_714


@pytest.mark.parametrize(
    ("depth", "w", "classes", "channels"), [(10, 1, 2, 1), (16, 2, 10, 3), (22, 3, 7, 3), (28, 1, 100, 1)]
)
def test_number_of_parameters(depth: int, w: int, classes: int, channels: int) -> None:
    assert count(WideResNet(depth, w, classes, channels)) == parameters(depth, w, classes, channels)


def functional(network: WideResNet, x: torch.Tensor, n: int) -> torch.Tensor:
    """The forward pass of the paper, from the parameters alone."""
    p = network.state_dict()

    def bn_relu(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (
            p[f"{name}.{key}"].view(-1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    x = F.conv2d(x, p["stem.weight"], padding=1)
    for index in range(3 * n):
        name, stride = f"blocks.{index}", 2 if index in (n, 2 * n) else 1
        active = bn_relu(x, f"{name}.bn1")
        y = F.conv2d(active, p[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = F.conv2d(bn_relu(y, f"{name}.bn2"), p[f"{name}.conv2.weight"], padding=1)
        if x.shape != y.shape:
            x = F.conv2d(active, p[f"{name}.shortcut.weight"], stride=stride)
        x = x + y
    return bn_relu(x, "bn").sum(dim=(2, 3)) / x[0, 0].numel() @ p["linear.weight"].T + p["linear.bias"]


@pytest.mark.parametrize(
    ("depth", "w", "shape"),
    [(10, 1, (3, 8, 8)), (16, 2, (1, 9, 7)), (10, 1, (3, 32, 32)), (10, 1, (1, 1, 1))],
)
def test_forward_is_that_of_the_paper(depth: int, w: int, shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    network = WideResNet(depth, w, 10, shape[0], size=shape[1:]).double().eval()
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(network(x), functional(network, x, (depth - 4) // 6))


def test_stages_halve_the_map_and_double_the_channels() -> None:
    network, shapes = WideResNet(10, 3, 10, 3, size=(8, 8)), []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    network(torch.zeros(2, 3, 8, 8))
    assert shapes == [(48, 8, 8), (96, 4, 4), (192, 2, 2)]


def test_initialisation_is_he_normal_over_the_fan_out() -> None:
    """Level 1e-4 over all weights of the convolutions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = WideResNet(16, 1, 10, 3)
    weights = [layer.weight.detach() for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    scaled = [w / math.sqrt(2 / (w.shape[0] * w.shape[2] * w.shape[3])) for w in weights]
    assert stats.kstest(torch.cat([w.flatten() for w in scaled]).numpy(), "norm").pvalue > 1e-4
    assert not network.linear.bias.any()


def test_factories_make_every_activation_and_layer() -> None:
    activations, convolutions, sizes = [], [], []

    def activation(channels: int) -> nn.Module:
        activations.append(channels)
        return nn.Tanh()

    def convolution(
        channels_in: int, channels_out: int, kernel: int, *, stride: int, size: tuple[int, int]
    ) -> nn.Conv2d:
        convolutions.append((channels_in, channels_out, kernel, stride))
        sizes.append(size)
        return nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False)

    network = WideResNet(10, 1, 10, 3, size=(9, 8), activation=activation, convolution=convolution)
    assert activations == [16, 16, 16, 32, 32, 64, 64]
    assert len(convolutions) == sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == 9
    assert not any(isinstance(layer, nn.ReLU) for layer in network.modules())
    seen = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape[2:])))
    network(torch.zeros(2, 3, 9, 8))
    assert sorted(seen) == sorted(sizes), "`size` must be the height and width of the convolution's input"


@pytest.mark.parametrize("depth", [4, 9, 12])
def test_depth_must_be_6n_plus_4(depth: int) -> None:
    with pytest.raises(ValueError, match="`depth` must be 6n"):
        WideResNet(depth, 1, 10, 3)


def test_recorded_batch_norm_is_torch_s() -> None:
    """Output and every gradient in evaluation, where it is a scale and a shift; and training as it is."""
    ours, theirs = BatchNorm(5).double(), nn.BatchNorm2d(5).double()
    for tensor in (ours.weight.data, ours.bias.data, ours.running_mean, ours.running_var):
        tensor.uniform_(0.5, 2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 5, 3, 2, dtype=torch.float64).requires_grad_()
    for training in (True, False):
        results = []
        for layer in (ours, theirs):
            y = layer.train(training)(x)
            results.append((y, *torch.autograd.grad(y.pow(3).sum(), (x, *layer.parameters()))))
        torch.testing.assert_close(*results)
    assert {name: value.tolist() for name, value in ours.state_dict().items()} == {
        name: value.tolist() for name, value in theirs.state_dict().items()
    }
