"""Activations on a CPU in one pass over memory, forward and backward, and blocks of a WideResNet in one call.

normalised   a batch norm of running statistics and the ReLU or mean gate after it, for the gradient in the pixels
relaxed      the gate of training with its noise and its KL
block        two `normalised` with the convolutions after them and the shortcut, a few images at a time

Other devices, dtypes and layouts, more threads than one, and machines without a C compiler have torch's own
operations (`lwta`, `paired`): the same law, though not the same draws or last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .. import native
from .convolution import empty_features
from .kernels import BLOCK, WIDE, call, room, usable
from .paired import channels_last, laid_out_as, per_pixel


@dataclass(frozen=True)
class Half:
    """Half of a block: batch norm, weights `[C]` of the blocks of its gate if any, and filters `[C', C, 3, 3]`."""

    norm: nn.BatchNorm2d
    factor: Tensor | None
    filters: Tensor


def fits(x: Tensor, units: int) -> bool:
    """Whether the passes below take features `[N, C, H, W]` or `[N, C]` in blocks of `units`; 1 is ReLU."""
    return units in (1, *native.UNITS) and not x.shape[1] % BLOCK and usable(x) and channels_last(x)


def norm_fits(norm: nn.BatchNorm2d, channels: int) -> bool:
    """Whether a batch norm is in evaluation, and has the statistics and parameters of so many channels."""
    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return not norm.training and all(
        part is not None
        and part.shape == (channels,)
        and part.device.type == "cpu"
        and part.dtype == torch.float32
        and part.is_contiguous()
        for part in parts
    )


def form_a_block(convolutions: Sequence[nn.Conv2d], channels: int) -> bool:
    """Whether they are the two convolutions of a block, and its shortcut if it has one, of so many channels.

    Each of them has a kernel (`convolution`).
    """
    first = convolutions[0]
    out, stride = len(first.weight), first.stride
    shapes = [(out, channels, 3, 3), (out, out, 3, 3), (out, channels, 1, 1)]
    strides = [stride, (1, 1), stride]
    found = [(tuple(layer.weight.shape), layer.stride) for layer in convolutions]
    if channels % WIDE or found != list(zip(shapes, strides, strict=True))[: len(found)]:
        return False
    return len(found) == 3 or (len(found) == 2 and out == channels and stride == (1, 1))


def normalised(norm: nn.BatchNorm2d, x: Tensor, *, units: int, factor: Tensor | None) -> Tensor:
    """ReLU (`units` = 1) or the mean gate of `norm(x)` in evaluation, times `factor` `[C]`.

    Gradients flow into x `[N, C, ...]` alone.
    """
    y: Tensor = _Normalised.apply(x, _affine(norm), factor, units)
    return y


def relaxed(h: Tensor, *, units: int, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
    """Features `[N, C, ...]` times the relaxed gate of training, drawn from `seed`, and the KL of `lwta.gate_kl`."""
    y, kl = _Relaxed.apply(h, units, temperature, seed)
    return y, kl


def block(x: Tensor, first: Half, second: Half, shortcut: Tensor | None, *, stride: int, units: int) -> Tensor:
    """A pre-activation block of both halves: `[N, C, H, W]` -> `[N, C', H / stride, W / stride]`.

    What is added is x, or the first activation convolved with `shortcut` `[C', C, 1, 1]`. Gradients flow into x alone.
    It is for features that `fits` and convolutions that `form_a_block`.
    """
    tensors: list[Tensor | None] = []
    for half in (first, second):
        tensors += [_affine(half.norm), half.factor, _as_filters(half.filters)]
    y: Tensor = _Block.apply(x, stride, units, *tensors, None if shortcut is None else _as_filters(shortcut))
    return y


def _affine(norm: nn.BatchNorm2d) -> Tensor:
    """Scale and shift `[2, C]` of a batch norm in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    channels = norm.num_features
    scale = norm.running_mean.new_empty(2, channels)
    call("affine", norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, scale, channels)
    return scale


def _as_filters(weight: Tensor) -> Tensor:
    return weight.detach().contiguous(memory_format=torch.channels_last)


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, factor: Tensor | None, units: int) -> Tensor:
        channels = x.shape[1]
        ctx.sizes = (x.numel() // channels, channels, units)
        y = torch.empty_like(x)
        factor = None if factor is None else factor.contiguous()
        call("normalised", x, scale, factor, y, *ctx.sizes)
        ctx.save_for_backward(x, scale, factor)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        x, scale, factor = ctx.saved_tensors
        into = torch.empty_like(x)
        call("normalised_back", laid_out_as(x, g), x, scale, factor, into, *ctx.sizes)
        return into, None, None, None


class _Relaxed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, units: int, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
        y, share = torch.empty_like(h), torch.empty_like(h)
        kl = call("relaxed", h, y, share, h.numel() // BLOCK, temperature, seed, units)
        ctx.per_pixel = per_pixel(h)
        ctx.rule = (temperature, units)
        ctx.save_for_backward(h, share)
        ctx.set_materialize_grads(False)
        return y, h.new_tensor(kl * ctx.per_pixel)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, g_kl: Tensor | None) -> tuple[Tensor, None, None, None]:
        h, share = ctx.saved_tensors
        into = torch.empty_like(h)
        temperature, units = ctx.rule
        g = torch.zeros_like(h) if g is None else laid_out_as(h, g)
        kl = 0.0 if g_kl is None else float(g_kl) * ctx.per_pixel
        call("relaxed_back", g, h, share, into, h.numel() // BLOCK, temperature, kl, units)
        return into, None, None, None


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, units: int, *tensors: Tensor | None) -> Tensor:
        images, channels, rows, columns = x.shape
        filters = tensors[5]
        assert filters is not None
        out = len(filters)
        ctx.sizes = (images, rows, columns, channels, out, stride)
        ctx.units = units
        middle, y = empty_features(x, out, stride), empty_features(x, out, stride)
        call("block", x, *tensors, middle, y, room("block_room", *ctx.sizes), *ctx.sizes, units)
        ctx.save_for_backward(x, middle, *tensors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, middle, *tensors = ctx.saved_tensors
        into = torch.empty_like(x)
        call(
            "block_back",
            laid_out_as(middle, g),
            x,
            middle,
            *tensors,
            into,
            room("block_room", *ctx.sizes),
            *ctx.sizes,
            ctx.units,
        )
        return into, *[None] * (2 + len(tensors))
