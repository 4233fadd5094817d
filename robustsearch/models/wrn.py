"""WideResNet-(6n+4)-w (Zagoruyko & Komodakis 2016, 1605.07146), with activation and layers passed in.

Pre-activation blocks: BN -> activation -> conv3x3, twice, plus the identity; where the shape changes, plus a
1x1 convolution of the ACTIVATED input, as in the authors' code. Stem of 16 channels, three stages of n blocks
with 16w, 32w and 64w channels and strides 1, 2, 2; final BN -> activation -> global average pooling ->
linear.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ..recipe import STEM_CHANNELS
from . import fused
from .convolution import Conv2d, strided
from .kernels import unaltered
from .lwta import LWTA


class Convolution(Protocol):
    """Makes a convolution without bias, padding `kernel // 2`, for inputs `[N, channels_in, *size]`."""

    def __call__(
        self, channels_in: int, channels_out: int, kernel: int, *, stride: int, size: tuple[int, int]
    ) -> nn.Conv2d: ...


def relu(channels: int) -> nn.Module:
    """ReLU, for any number of channels."""
    return nn.ReLU()


def convolution(channels_in: int, channels_out: int, kernel: int, *, stride: int, size: tuple[int, int]) -> nn.Conv2d:
    """A plain convolution; `size` makes no difference to it."""
    return Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm, as one scale and shift of each channel while an evaluation pass is recorded for a gradient.

    torch's own derives running statistics' gradients even where only the pixels' is asked for; this takes half the
    time, in crafting.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`[N, C, H, W]` -> the same."""
        if self.training or not torch.is_grad_enabled():
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift.view(-1, 1, 1), input, scale.view(-1, 1, 1))


def activated(norm: nn.Module, activation: nn.Module, x: Tensor) -> Tensor:
    """`activation(norm(x))` of `[N, C, H, W]`; in evaluation one pass over memory, where it can be (`fused`).

    It can be for ReLU and for gates that are the mean gate now, unless a gradient of parameters or a hook is asked for.
    """
    units = _smooth_units(activation)
    if (
        unaltered(norm, BatchNorm)
        and fused.fits(x, units)
        and fused.norm_fits(norm, x.shape[1])
        and not _watched(norm, activation)
    ):
        return fused.normalised(norm, x, units=units, factor=_factor(activation))
    return activation(norm(x))  # type: ignore[no-any-return]


def _smooth_units(activation: nn.Module) -> int:
    """Units of a block of the mean gate, if that is what an activation is now; 1 for ReLU, else 0."""
    if unaltered(activation, LWTA) and not activation.training and activation.mode != "straight":
        return activation.units if activation.rule(training=False) == (0.0, 1.0) else 0
    return int(unaltered(activation, nn.ReLU))


def _factor(activation: nn.Module) -> Tensor | None:
    return activation.factor() if isinstance(activation, LWTA) else None


def _watched(*parts: nn.Module) -> bool:
    """Whether a hook listens to what goes through these, or a gradient of a weight of theirs is recorded."""
    if _has_any_global_hook() or any(  # type: ignore[no-untyped-call]
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in parts
    ):
        return True
    if not torch.is_grad_enabled():
        return False
    weights: list[Tensor | None] = [value for part in parts for value in part.parameters()]
    weights += [getattr(part, name, None) for part in parts for name in ("weight", "bias")]  # not always parameters
    return any(value.requires_grad for value in weights if value is not None)


class GlobalAverage(nn.Module):
    """Mean over the pixels, of a map of any size (8x8 inputs end up 2x2): `[N, C, H, W]` -> `[N, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        """Mean over the pixels."""
        return x.mean(dim=(2, 3))


class Block(nn.Module):
    """A pre-activation residual block; `shortcut` is None for the identity."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        size: tuple[int, int],
        activation: Callable[[int], nn.Module],
        convolution: Convolution,
    ) -> None:
        """A block from `[N, channels_in, *size]` to `[N, channels_out, ceil(size / stride)]`."""
        super().__init__()
        self.bn1 = BatchNorm(channels_in)
        self.activation1 = activation(channels_in)
        self.conv1 = convolution(channels_in, channels_out, 3, stride=stride, size=size)
        self.bn2 = BatchNorm(channels_out)
        self.activation2 = activation(channels_out)
        self.conv2 = convolution(channels_out, channels_out, 3, stride=1, size=strided(size, stride))
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or channels_in != channels_out:
            self.shortcut = convolution(channels_in, channels_out, 1, stride=stride, size=size)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels_in, H, W]` -> `[N, channels_out, H', W']`."""
        if (whole := self._whole(x)) is not None:
            return whole
        entered = activated(self.bn1, self.activation1, x)
        branch: Tensor = self.conv2(activated(self.bn2, self.activation2, self.conv1(entered)))
        return branch + (x if self.shortcut is None else self.shortcut(entered))

    def _whole(self, x: Tensor) -> Tensor | None:
        """The block in one call, where each of its activations and convolutions could be, or None."""
        units = _smooth_units(self.activation1)
        if not fused.fits(x, units) or _smooth_units(self.activation2) != units:
            return None
        convolved = [layer for layer in (self.conv1, self.conv2, self.shortcut) if layer is not None]
        layers = [
            layer for layer in convolved if isinstance(layer, Conv2d) and layer.only_convolves and layer.has_kernel
        ]
        if len(layers) < len(convolved) or not layers[0].fits(x) or not fused.form_a_block(layers, x.shape[1]):
            return None
        for norm, channels in ((self.bn1, x.shape[1]), (self.bn2, len(self.conv1.weight))):
            if not unaltered(norm, BatchNorm) or not fused.norm_fits(norm, channels):
                return None
        if _watched(*self.children()):
            return None
        first, second, *shortcut = [layer.filters() for layer in layers]
        return fused.block(
            x,
            fused.Half(self.bn1, _factor(self.activation1), first),
            fused.Half(self.bn2, _factor(self.activation2), second),
            shortcut[0] if shortcut else None,
            stride=layers[0].stride[0],
            units=units,
        )


class WideResNet(nn.Module):
    """WideResNet on normalised images `[N, channels_in, *size]`, to logits `[N, classes]`."""

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        classes: int,
        channels_in: int,
        *,
        size: tuple[int, int] = (32, 32),
        activation: Callable[[int], nn.Module] = relu,
        convolution: Convolution = convolution,
        linear: Callable[[int, int], nn.Linear] = nn.Linear,
    ) -> None:
        """A network with He's initialisation, drawn from torch's global generator.

        Args:
            depth: Layers, 6n + 4.
            widen_factor: w, at least 1.
            classes: Number of logits.
            channels_in: Channels of an image.
            size: Height and width of an image; only layers with one parameter per pixel depend on it.
            activation: Makes the activation for a number of channels.
            convolution: Makes a convolution.
            linear: Makes the classifier.
        """
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"`depth` must be 6n + 4, at least 10, but got {depth}")
        channels = STEM_CHANNELS
        self.stem = convolution(channels_in, channels, 3, stride=1, size=size)
        self.blocks = nn.Sequential()
        for stage, first_stride in enumerate((1, 2, 2)):
            width = STEM_CHANNELS * widen_factor * 2**stage
            for index in range((depth - 4) // 6):
                stride = first_stride if index == 0 else 1
                self.blocks.append(Block(channels, width, stride, size, activation, convolution))
                channels, size = width, strided(size, stride)
        self.bn = BatchNorm(channels)
        self.activation = activation(channels)
        self.pool = GlobalAverage()
        self.linear = linear(channels, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # He et al. 2015, 1502.01852
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[N, classes]`."""
        features = activated(self.bn, self.activation, self.blocks(self.stem(x)))
        logits: Tensor = self.linear(self.pool(features))
        return logits
