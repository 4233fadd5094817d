"""The LWTA gate for blocks of two units in few passes over memory, with its gradient in closed form.

With margin m = h_0 - h_1, draw L and share s of unit 0, the output and what autograd would find through it are

    y = (s h_0, (1 - s) h_1)            s = sigmoid((m + L) / tau), or 1 where m + L >= 0
    dJ/dm = (g_0 h_0 - g_1 h_1) s (1 - s) / tau + k c (1 - c) m
    dJ/dh = (g_0 s + dJ/dm, g_1 (1 - s) - dJ/dm)

for gradients g of y and k of the gate's KL to the uniform gate, which is even in m: with c = sigmoid(-|m|), the chance
of the unit that is behind, it is log 2 + log(1 - c) - c |m|.

`lwta` has the plain formulas, which this is tested against and which serve all other blocks and layouts. What counts on
a CPU is passes: two units lie side by side in channels-last memory, where one strided pass costs as much as three
contiguous ones. A complex number is such a pair, so (s, 1 - s) is written in one pass, and g_0 h_0 - g_1 h_1 is the
real part of one product. On small maps the number of calls counts too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

GROUP = 64
"""Factors 2 (1 - c) in [1, 2] whose product stays far from float32's largest, 2^128: one logarithm serves them all."""


def fits(h: Tensor) -> bool:
    """Whether `paired_gate` takes `[N, 2 B, ...]`: pairs side by side, in a dtype that complex numbers have.

    Not while a compiler looks on, which fuses the plain formulas by itself and knows no complex numbers.
    """
    if h.dtype not in (torch.float32, torch.float64) or torch.compiler.is_compiling():
        return False
    return channels_last(h)


def channels_last(h: Tensor) -> bool:
    """Whether the channels of `[N, C, H, W]` or `[N, C]` lie side by side in memory."""
    return h.is_contiguous(memory_format=torch.channels_last) if h.dim() == 4 else h.dim() == 2 and h.is_contiguous()


def laid_out_as(h: Tensor, g: Tensor) -> Tensor:
    """`g` in the layout of `h`."""
    return g if g.stride() == h.stride() else torch.empty_like(h).copy_(g)


def per_pixel(h: Tensor) -> float:
    """1 / (images * pixels), the KL's share of each."""
    return h.shape[1] / max(h.numel(), 1)


def paired_gate(
    h: Tensor, *, noise: Tensor | None, scale: float, temperature: float | None, with_kl: bool
) -> tuple[Tensor, Tensor | None]:
    """Gated features of the shape and memory format of `h`, and the KL of `lwta.pair_gate_kl`, or None.

    Args:
        h: Logits and features `[N, 2 B, ...]` for which `fits`.
        noise: A logistic draw for each block `[P]`, in the order of memory; it is written over.
        scale: Factor of the noise, > 0.
        temperature: Softmax temperature; None for the one-hot winner.
        with_kl: Whether the KL is wanted.
    """
    y, kl = _PairedGate.apply(h, noise, scale, temperature, with_kl)
    return y, kl


class _PairedGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, noise: Tensor | None, scale: float, temperature: float | None, with_kl: bool
    ) -> tuple[Tensor, Tensor | None]:
        pairs = _pairs(h)
        first, second = pairs.unbind(1)
        margin = first - second
        share = _share(margin, noise, scale, temperature)
        weights = torch.view_as_real(torch.complex(share, 1 - share))
        kl = slope = None
        if with_kl:
            kl, slope = _kl(margin)
            kl.mul_(per_pixel(h))
        ctx.save_for_backward(h, weights, None if temperature is None else share, slope)
        ctx.temperature = temperature
        return (pairs * weights).as_strided(h.shape, h.stride()), kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, g_kl: Tensor | None) -> tuple[Tensor, None, None, None, None]:
        h, weights, share, slope = ctx.saved_tensors
        g = _pairs(laid_out_as(h, g))
        along = None
        if share is not None:
            product = torch.view_as_complex(g) * torch.view_as_complex(_pairs(h))
            along = torch.ops.aten.sigmoid_backward(product.real, share)
            if ctx.temperature != 1:
                along.mul_(1 / ctx.temperature)
        if slope is not None and g_kl is not None:
            g_kl = g_kl * (0.5 * per_pixel(h))
            along = slope * g_kl if along is None else along.addcmul_(slope, g_kl)
        into = g * weights if along is None else torch.view_as_real(torch.complex(along, -along)).addcmul_(g, weights)
        return into.as_strided(h.shape, h.stride()), None, None, None, None


def _pairs(h: Tensor) -> Tensor:
    """`[N, 2 B, ...]` as pairs `[P, 2]` in the order of memory, P = N * ... * B."""
    return h.as_strided((h.numel() // 2, 2), (2, 1))


def _share(margin: Tensor, noise: Tensor | None, scale: float, temperature: float | None) -> Tensor:
    """Gate of unit 0 `[P]`; writes over the noise."""
    if noise is not None:
        margin = (noise if scale == 1 else noise.mul_(scale)).add_(margin)
    if temperature is None:
        return (margin >= 0).to(margin.dtype)
    if temperature == 1:
        return torch.sigmoid(margin)
    return margin.mul_(1 / temperature).sigmoid_() if noise is not None else torch.sigmoid(margin / temperature)


def _kl(margin: Tensor) -> tuple[Tensor, Tensor]:
    """KL summed over the pairs `[P]`, nats, and twice its derivative by each margin."""
    distance = margin.abs().neg_()  # -|m|
    behind = torch.sigmoid(distance)
    ahead = torch.rsub(behind, 2, alpha=2)  # twice the chance of the unit that is ahead
    whole = len(ahead) // GROUP * GROUP
    logarithms = ahead[:whole].view(-1, GROUP).prod(dim=1).log_().sum()
    if whole < len(ahead):
        logarithms += ahead[whole:].log().sum()
    total = logarithms + torch.dot(behind, distance)
    return total, behind.mul_(ahead).mul_(margin)
