"""Convolutions of channels-last features on one thread of a CPU: `native/convolve.h` under autograd.

What a result is depends neither on the size of its batch nor on its place in it. All else has torch's convolution:
the same sums, in another order.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from .kernels import WIDE, call, convolves_faster, room, unaltered, usable
from .paired import channels_last


class Conv2d(nn.Conv2d):
    """torch's convolution, by a kernel where there is one for it."""

    @property
    def only_convolves(self) -> bool:
        """Whether a pass now is a convolution with `filters()` and nothing else."""
        return unaltered(self, Conv2d) and self.bias is None

    def filters(self) -> Tensor:
        """Filters `[C', C, K, K]` of the pass that begins now."""
        return self.weight

    @property
    def has_kernel(self) -> bool:
        """Whether there is a kernel for such a layer, whatever it is given."""
        weight = self.weight
        rule = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return _knows(*rule, weight.shape[0]) and weight.dtype == torch.float32 and weight.device.type == "cpu"

    def fits(self, x: Tensor) -> bool:
        """Whether its kernel takes features `[N, C, H, W]` now."""
        if not usable(x) or not convolves_faster() or x.dim() != 4 or torch.is_autocast_enabled("cpu"):
            return False
        sized = x.shape[1] == self.weight.shape[1] and x.shape[2] > 0 and x.shape[3] > 0
        return sized and self.has_kernel and channels_last(x)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None or not self.fits(input):
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        if torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad):
            y: Tensor = _Convolution.apply(input, weight, self.stride[0])
            return y
        return _convolved(input, weight, self.stride[0])[0]


def strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width after a convolution that only its stride makes smaller."""
    height, width = size
    return (height - 1) // stride + 1, (width - 1) // stride + 1


def empty_features(x: Tensor, channels: int, stride: int) -> Tensor:
    """Features `[N, channels, *strided]` to be written, for a convolution of x `[N, C, H, W]`."""
    images, _, *size = x.shape
    shape = (images, channels, *strided((size[0], size[1]), stride))
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@functools.cache
def _knows(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: str | tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    padding_mode: str,
    channels_out: int,
) -> bool:
    same = kernel in ((1, 1), (3, 3)) and padding == (kernel[0] // 2, kernel[0] // 2) and padding_mode == "zeros"
    plain = stride in ((1, 1), (2, 2)) and dilation == (1, 1) and groups == 1
    return same and plain and channels_out % WIDE == 0


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        y, ctx.sizes = _convolved(x, weight, stride)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled() or not usable(g):  # this gradient has one itself, which torch knows
            return *_backward(g, x, weight, ctx.sizes, ctx.needs_input_grad), None
        g = g.contiguous(memory_format=torch.channels_last)
        weight = weight.contiguous(memory_format=torch.channels_last)
        into = filters = None
        if ctx.needs_input_grad[0]:
            into = torch.empty_like(x)
            call("convolve_back", g, weight, into, room("convolution_room", *ctx.sizes), len(x), *ctx.sizes)
        if ctx.needs_input_grad[1]:
            filters = torch.empty_like(weight)
            call("convolve_filters", x, g, filters, room("convolution_room", *ctx.sizes), len(x), *ctx.sizes)
        return into, filters, None


def _convolved(x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, tuple[int, ...]]:
    """The result, and the sizes that the kernel was called with."""
    images, channels, rows, columns = x.shape
    out, _, kernel, _ = weight.shape
    sizes = (rows, columns, channels, out, kernel, stride)
    y = empty_features(x, out, stride)
    call(
        "convolve",
        x,
        weight.contiguous(memory_format=torch.channels_last),
        y,
        room("convolution_room", *sizes),
        images,
        *sizes,
    )
    return y, sizes


def _backward(
    g: Tensor, x: Tensor, weight: Tensor, sizes: tuple[int, ...], wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    *_, kernel, stride = sizes
    same = [kernel // 2] * 2
    into, filters, _ = torch.ops.aten.convolution_backward(
        g, x, weight, None, [stride] * 2, same, [1, 1], False, [0, 0], 1, [*wanted[:2], False]
    )
    return into, filters
