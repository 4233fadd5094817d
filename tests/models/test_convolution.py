"""The convolutions in C against torch's in float64 under autograd, and what they leave to torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import Network, images, make, recipe
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from robustsearch.attacks.gradient import crafting
from robustsearch.models import convolution
from robustsearch.models.convolution import Conv2d
from robustsearch.models.kernels import usable
from robustsearch.models.stochastic import surrogate
from robustsearch.models.wrn import BatchNorm, Block

__all__ = ["images", "make", "recipe"]

Make = Callable[..., Network]

MAPS = [(8, 8), (2, 2), (4, 4), (7, 13), (32, 5), (1, 1), (1, 9), (3, 2)]
"""Maps for Winograd's patches, whole ones or cut off, and maps that are too small for them."""


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels even on processors for which torch has faster convolutions."""
    if not usable(torch.zeros(1)):
        pytest.skip("there is no C compiler here")
    monkeypatch.setattr(convolution, "convolves_faster", lambda: True)


def features(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def layer(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, **options: Any) -> Conv2d:
    options = {"padding": kernel // 2, "bias": False} | options
    made = Conv2d(channels_in, channels_out, kernel, stride=stride, **options)
    made.weight.data.copy_(features(*made.weight.shape, seed=1))
    return made.to(memory_format=torch.channels_last)


def assert_near(found: Tensor, exact: Tensor) -> None:
    """Within some roundings of the largest value."""
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=3e-6 * float(exact.abs().max().clamp_min(1)))


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2)])
@pytest.mark.parametrize("channels", [(16, 16), (16, 48), (80, 32), (3, 16), (1, 32)])
def test_a_convolution_and_both_its_gradients(
    size: tuple[int, int], kernel: int, stride: int, channels: tuple[int, int]
) -> None:
    convolution, x = layer(*channels, kernel, stride), features(7, channels[0], *size).requires_grad_()
    assert convolution.fits(x.detach())
    y = convolution(x)
    assert type(y.grad_fn).__name__ == "_ConvolutionBackward"
    assert y.is_contiguous(memory_format=torch.channels_last)
    wide, weight = (tensor.detach().double().requires_grad_() for tensor in (x, convolution.weight))
    exact = F.conv2d(wide, weight, stride=stride, padding=kernel // 2)
    assert_near(y.detach(), exact.detach())
    for g in (features(*y.shape, seed=2), features(*y.shape, seed=2).contiguous()):
        found = torch.autograd.grad(y, (x, convolution.weight), g, retain_graph=True)
        for gradient, reference in zip(
            found, torch.autograd.grad(exact, (wide, weight), g.double(), retain_graph=True), strict=True
        ):
            assert_near(gradient, reference)


@pytest.mark.parametrize("channels", [(16, 16), (384, 384)], ids=["filters that stay", "filters that do not"])
def test_it_is_as_near_to_the_truth_as_torch_is(channels: tuple[int, int]) -> None:
    plain, x = layer(*channels), features(2, channels[0], 8, 8)
    exact = F.conv2d(x.double(), plain.weight.double(), padding=1)
    torchs = F.conv2d(x, plain.weight, padding=1)
    assert (plain(x) - exact).abs().max() < 2 * (torchs - exact).abs().max()


@pytest.mark.parametrize("size", [(8, 8), (2, 2), (6, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_an_image_gives_depends_on_no_other(size: tuple[int, int], stride: int) -> None:
    convolution, x = layer(16, 32, stride=stride), features(23, 16, *size).requires_grad_()
    y = convolution(x)
    g = features(*y.shape, seed=2)
    (gradient,) = torch.autograd.grad(y, x, g)
    for start, end in ((0, 1), (3, 10), (22, 23)):
        part = x.detach()[start:end].clone(memory_format=torch.channels_last).requires_grad_()
        alone = convolution(part)
        assert torch.equal(alone, y[start:end])
        assert torch.equal(torch.autograd.grad(alone, part, g[start:end])[0], gradient[start:end])


def test_no_images_are_no_features() -> None:
    plain, x = layer(16, 32), features(0, 16, 8, 8).requires_grad_()
    y = plain(x)
    assert y.shape == (0, 32, 8, 8)
    gradient, filters = torch.autograd.grad(y.sum(), (x, plain.weight))
    assert gradient.shape == x.shape
    assert not filters.any()


def test_what_it_leaves_to_torch() -> None:
    x = features(2, 16, 8, 8)
    assert layer(16, 16).fits(x)
    others: list[dict[str, Any]] = [{"padding": 0}, {"groups": 2}, {"dilation": 2, "padding": 2}, {"stride": 3}]
    for options in (*others, {"kernel": 5}, {"padding_mode": "circular"}):
        assert not layer(16, 16, **options).fits(x)
    assert not layer(16, 24).fits(x)
    assert not layer(16, 16).fits(x.contiguous())
    assert not layer(16, 16).fits(x.double())
    assert not layer(16, 16).double().fits(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(16, 16)(x).dtype == torch.bfloat16
    biased = layer(16, 16, bias=True)
    torch.testing.assert_close(biased(x), F.conv2d(x, biased.weight, biased.bias, padding=1))
    torch.set_num_threads(2)
    try:
        assert not layer(16, 16).fits(x)
    finally:
        torch.set_num_threads(1)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # by torch's own tracer
def test_others_that_work_on_torchs_operations_find_them() -> None:
    """A counter, a tracer, transformations, forward mode, and the gradient of a gradient."""
    ours, x = layer(16, 16), features(2, 16, 8, 8)
    theirs = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    theirs.load_state_dict(ours.state_dict())
    with FlopCounterMode(display=False) as counter:
        ours(x)
    assert counter.get_total_flops() == 2 * 2 * 8 * 8 * 16 * 16 * 9
    traced = make_fx(ours)(features(2, 16, 8, 8, seed=4))
    torch.testing.assert_close(traced(x), theirs(x))
    tangent = features(2, 16, 8, 8, seed=5)
    for primal, derivative in (torch.func.jvp(each, (x,), (tangent,)) for each in (ours, theirs)):
        torch.testing.assert_close(primal, theirs(x))
        torch.testing.assert_close(derivative, theirs(tangent))
    with forward_ad.dual_level():
        derivative = forward_ad.unpack_dual(ours(forward_ad.make_dual(x, tangent))).tangent
    torch.testing.assert_close(derivative, theirs(tangent))
    penalties = []
    for each in (ours, theirs):
        pixels = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(each(pixels).pow(3).sum(), pixels, create_graph=True)
        penalties.append(torch.autograd.grad(gradient.pow(2).sum(), (pixels, each.weight)))
    for found, expected in zip(*penalties, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_buffers_are_float32_whatever_torch_makes_else() -> None:
    convolution, x = layer(16, 16), features(2, 16, 8, 8)
    expected = convolution(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(convolution(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("stride", [1, 2])
def test_maps_without_pixels_are_refused_by_torch(stride: int) -> None:
    with pytest.raises(RuntimeError):
        layer(16, 16, stride=stride)(features(2, 16, 0, 8))


def test_few_channels_of_a_map_wider_than_a_strip() -> None:
    convolution, x = layer(1, 16), features(1, 1, 2, 200).requires_grad_()
    y = convolution(x)
    g = features(*y.shape, seed=2)
    (expected,) = torch.autograd.grad(F.conv2d(x, convolution.weight, padding=1), x, g)
    torch.testing.assert_close(torch.autograd.grad(y, x, g)[0], expected, rtol=1e-4, atol=1e-4)


FIELDS: dict[str, dict[str, Any]] = {
    "ReLU": {},
    "LWTA-2": {"lwta": {}},
    "LWTA-8": {"lwta": {"units": 8}},
    "IBP": {"lwta": {"units": 4, "ibp": {}}},
    "PNI": {"pni": {}},
    "PNI and IBP": {"pni": {"where": "weights"}, "lwta": {"ibp": {}}},
}


def ready(make: Make, images: Tensor, fields: dict[str, Any]) -> Network:
    """A network with statistics of its own, whose blocks do something."""
    network = make(fields)
    generator = torch.Generator().manual_seed(3)
    for block in blocks_of(network):
        block.conv2.weight.data.normal_(0, 0.2, generator=generator)
    network.train()(images)
    return network.eval()


def blocks_of(network: Network) -> list[Block]:
    return [block for block in network.modules() if isinstance(block, Block)]


def whole(block: Block, x: Tensor) -> bool:
    """Whether a block was one call, with a gradient to come."""
    names, open_nodes = set(), [block(x).grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        names.add(type(node).__name__)
        open_nodes += [child for child, _ in getattr(node, "next_functions", ()) if child is not None]
    return "_BlockBackward" in names


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_blocks_in_one_call_are_their_layers(
    fields: dict[str, Any], make: Make, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ready(make, images, fields)
    found = []
    for together in (True, False):
        if not together:
            monkeypatch.setattr(convolution, "convolves_faster", lambda: False)
        for block in blocks_of(network):
            x = features(37, block.bn1.num_features, 6, 5, seed=4).requires_grad_()
            with crafting(network), surrogate(network):
                network.noise.seed(5)
                assert whole(block, x) == together
                network.noise.seed(5)
                y = block(x)
                (gradient,) = torch.autograd.grad(y, x, features(*y.shape, seed=6).contiguous())
            found.append((y.detach(), gradient))
    count = len(found) // 2
    for (y, gradient), (layers, reference) in zip(found[:count], found[count:], strict=True):
        torch.testing.assert_close(y, layers, rtol=0, atol=1e-5 * float(layers.abs().max()))
        torch.testing.assert_close(gradient, reference, rtol=0, atol=1e-5 * float(reference.abs().max()))


def test_a_block_is_one_call_only_where_its_layers_have_nothing_to_say(make: Make, images: Tensor) -> None:
    network = ready(make, images, {"lwta": {}})
    block = blocks_of(network)[0]
    x = features(3, block.bn1.num_features, 8, 8).requires_grad_()
    with surrogate(network):
        assert not whole(block, x), "its parameters learn"
    with crafting(network), surrogate(network):
        assert whole(block, x)
        assert not whole(block.train(), x), "batch norm has the batch's statistics"
        block.eval()
        for part in block.children():
            hook = part.register_forward_hook(lambda *_: None)
            assert not whole(block, x), "a hook listens"
            hook.remove()
        assert whole(block, x)
    with crafting(network):
        assert not whole(block, x), "the gates have winners"
    for where in ("inputs", "activations"):
        noisy = ready(make, images, {"pni": {"where": where}})
        with crafting(noisy):
            assert not whole(blocks_of(noisy)[0], x), "there is noise between the layers"


def test_hooks_of_every_kind_are_heard(make: Make, images: Tensor) -> None:
    network = ready(make, images, {})
    block = next(block for block in blocks_of(network) if block.shortcut is not None)
    x = features(3, block.bn1.num_features, 8, 8).requires_grad_()
    assert block.shortcut is not None
    with crafting(network):
        assert whole(block, x)
        for part in (block.shortcut, block.conv2):
            for listen in (part.register_forward_pre_hook, part.register_full_backward_hook):
                hook = listen(lambda *_: None)  # type: ignore[operator]
                assert not whole(block, x)
                hook.remove()
        hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
        assert not whole(block, x)
        hook.remove()
        block.conv1.forward = lambda given: given[:, :1]  # type: ignore[method-assign,assignment]
        with pytest.raises(RuntimeError):
            block(x)
        del block.conv1.forward
        assert whole(block, x)


def test_filters_that_are_no_parameters_have_their_gradient(make: Make, images: Tensor) -> None:
    network = ready(make, images, {})
    block = blocks_of(network)[0]
    with crafting(network):
        made = block.conv1.weight.detach().clone(memory_format=torch.channels_last).requires_grad_()
        del block.conv1.weight
        block.conv1.weight = made  # type: ignore[assignment]
        block(features(3, block.bn1.num_features, 8, 8)).sum().backward()
    assert made.grad is not None
    assert made.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("conv2", lambda c: layer(c, c, 1)),
        ("conv2", lambda c: layer(2 * c, c)),
        ("conv2", lambda c: layer(c, c, stride=2)),
        ("shortcut", lambda c: layer(c, c, 3)),
        ("conv1", lambda c: layer(c, 2 * c)),
        ("bn2", lambda c: BatchNorm(c // 2)),
        ("bn1", lambda c: nn.BatchNorm2d(c, affine=False)),
    ],
)
def test_what_is_not_a_block_of_the_kernel_is_its_layers(
    part: str, other: Callable[[int], nn.Module], make: Make, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ready(make, images, {})
    block = blocks_of(network)[0]
    channels = block.bn1.num_features
    setattr(block, part, other(channels).eval())
    block.requires_grad_(False)
    x, found = features(3, channels, 8, 8), []
    for together in (True, False):
        if not together:
            monkeypatch.setattr(convolution, "convolves_faster", lambda: False)
        try:
            found.append(block(x))
        except RuntimeError:
            found.append(None)
    if found[1] is None:
        assert found[0] is None
    else:
        torch.testing.assert_close(*found, rtol=0, atol=1e-5 * float(found[1].abs().max()))


@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode])
def test_predictions_are_the_same_with_and_without_a_record(context: Any, make: Make, images: Tensor) -> None:
    network = ready(make, images, {})
    with crafting(network):
        expected = network(images.clone().requires_grad_()).detach()
        with context():
            assert torch.equal(network(images), expected)


def test_layers_of_torch_have_the_same_parameters() -> None:
    assert isinstance(layer(16, 16), nn.Conv2d)
    assert layer(16, 16).state_dict().keys() == nn.Conv2d(16, 16, 3, bias=False).state_dict().keys()
