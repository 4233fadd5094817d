"""Convolutions of channels-last features on one thread of a CPU: `native/convolve.h` under autograd.

What a result is depends neither on the size of its batch nor on its place in it. All else has torch's convolution:
the same sums, in another order.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .kernels import call, convolves, takes
from .paired import channels_last

WIDE = 16
"""Channels that are convolved at once; a result has a multiple of them."""


class Conv2d(nn.Conv2d):
    """torch's convolution, by the kernel where that takes it."""

    @property
    def alone(self) -> bool:
        """Whether a pass now is a convolution with `filters()` and nothing else."""
        return self.bias is None

    def filters(self) -> Tensor:
        """Filters `[C', C, K, K]` of the pass that begins now."""
        return self.weight

    @property
    def known(self) -> bool:
        """Whether the kernel has such a layer."""
        weight = self.weight
        rule = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode)
        return _knows(*rule, weight.shape[0]) and weight.dtype == torch.float32

    def fits(self, x: Tensor) -> bool:
        """Whether the kernel takes it on features `[N, C, H, W]`."""
        if not takes(x) or not convolves() or x.dim() != 4 or torch.is_autocast_enabled("cpu"):
            return False
        return x.shape[1] == self.weight.shape[1] and self.known and channels_last(x)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None or not self.fits(input):
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        if torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad):
            y: Tensor = _Convolution.apply(input, weight, self.stride[0])
            return y
        return _convolved(input, weight.contiguous(memory_format=torch.channels_last), self.stride[0])[0]


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
        weight = weight.contiguous(memory_format=torch.channels_last)
        y, ctx.sizes = _convolved(x, weight, stride)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        g = g.contiguous(memory_format=torch.channels_last)
        into = filters = None
        if ctx.needs_input_grad[0]:
            into = torch.empty_like(x)
            call("convolve_back", g, weight, into, _room(ctx.sizes), len(x), *ctx.sizes)
        if ctx.needs_input_grad[1]:
            filters = torch.empty_like(weight)
            call("convolve_filters", x, g, filters, _room(ctx.sizes), len(x), *ctx.sizes)
        return into, filters, None


def _convolved(x: Tensor, weight: Tensor, stride: int) -> tuple[Tensor, tuple[int, ...]]:
    """The result of a kernel that `fits`, and the sizes that it was called with."""
    images, channels, rows, columns = x.shape
    out, _, kernel, _ = weight.shape
    sizes = (rows, columns, channels, out, kernel, stride)
    shape = (images, out, (rows - 1) // stride + 1, (columns - 1) // stride + 1)
    y = torch.empty(shape, memory_format=torch.channels_last)
    call("convolve", x, weight, y, _room(sizes), images, *sizes)
    return y, sizes


def _room(sizes: tuple[int, ...]) -> Tensor:
    return torch.empty(_floats(sizes))


@functools.lru_cache(maxsize=256)
def _floats(sizes: tuple[int, ...]) -> int:
    count: int = call("convolution_room", *sizes)
    return count
