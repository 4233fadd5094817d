"""Convolutions of channels-last features on one thread of a CPU: `native/convolve.h` under autograd.

What a result is depends neither on the size of its batch nor on its place in it. All else has torch's convolution:
the same sums, in another order.
"""

from __future__ import annotations

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
        kernel, stride = self.kernel_size, self.stride
        return (
            kernel in ((1, 1), (3, 3))
            and stride in ((1, 1), (2, 2))
            and self.padding == (kernel[0] // 2, kernel[0] // 2)
            and self.dilation == (1, 1)
            and self.groups == 1
            and self.padding_mode == "zeros"
            and self.weight.shape[0] % WIDE == 0
            and self.weight.dtype == torch.float32
        )

    def fits(self, x: Tensor) -> bool:
        """Whether the kernel takes it on features `[N, C, H, W]`."""
        shaped = x.dim() == 4 and x.shape[1] == self.weight.shape[1]
        if not shaped or not takes(x) or not convolves() or torch.is_autocast_enabled("cpu"):
            return False
        return self.known and channels_last(x)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None and self.fits(input):
            y: Tensor = _Convolution.apply(input, weight, self.stride[0])
            return y
        return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        images, channels, rows, columns = x.shape
        out, _, kernel, _ = weight.shape
        weight = weight.contiguous(memory_format=torch.channels_last)
        ctx.sizes = (rows, columns, channels, out, kernel, stride)
        shape = (images, out, (rows - 1) // stride + 1, (columns - 1) // stride + 1)
        y = torch.empty(shape, memory_format=torch.channels_last)
        call("convolve", x, weight, y, _room(ctx.sizes), images, *ctx.sizes)
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


def _room(sizes: tuple[int, ...]) -> Tensor:
    return torch.empty(call("convolution_room", *sizes))
