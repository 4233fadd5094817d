"""Activations on a CPU in one pass over memory, forward and backward: `native/activate.c` under autograd.

normalised   a batch norm of running statistics and the ReLU or mean gate after it, for the gradient in the pixels
relaxed      the gate of training with its noise and its KL

Other devices, dtypes and layouts, more threads than one, and machines without a C compiler have torch's own
operations (`lwta`, `paired`): the same law, though not the same draws or last bits.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_double, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .. import native
from .paired import channels_last, laid_out_as, per_pixel

BLOCK = 8
"""Channels in a vector."""


def fits(x: Tensor, units: int) -> bool:
    """Whether the passes below take features `[N, C, H, W]` or `[N, C]` in blocks of `units`; 1 is ReLU."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or type(x) is not Tensor or torch.compiler.is_compiling():
        return False
    if units not in (1, *native.UNITS) or x.shape[1] % BLOCK or torch.get_num_threads() > 1 or _library() is None:
        return False
    return channels_last(x)


def normalised(norm: nn.BatchNorm2d, x: Tensor, *, units: int, factor: Tensor | None) -> Tensor:
    """ReLU (`units` = 1) or the mean gate of `norm(x)` in evaluation, times `factor` `[C]`.

    Gradients flow into x `[N, C, ...]` alone.
    """
    y: Tensor = _Normalised.apply(x, norm, units, factor)
    return y


def relaxed(h: Tensor, *, units: int, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
    """Features `[N, C, ...]` times the relaxed gate of training, drawn from `seed`, and the KL of `lwta.gate_kl`."""
    y, kl = _Relaxed.apply(h, units, temperature, seed)
    return y, kl


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.BatchNorm2d, units: int, factor: Tensor | None) -> Tensor:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        channels = x.shape[1]
        ctx.sizes = (x.numel() // channels, channels, units)
        scale, y = x.new_empty(2, channels), torch.empty_like(x)
        parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        factor = None if factor is None else factor.contiguous()
        _call("normalised", x, *parts, norm.eps, factor, scale, y, *ctx.sizes)
        ctx.save_for_backward(x, scale, factor)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        x, scale, factor = ctx.saved_tensors
        into = torch.empty_like(x)
        _call("normalised_back", laid_out_as(x, g), x, scale, factor, into, *ctx.sizes)
        return into, None, None, None


class _Relaxed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, units: int, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
        y, share = torch.empty_like(h), torch.empty_like(h)
        kl = _call("relaxed", h, y, share, h.numel() // BLOCK, temperature, seed, units)
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
        _call("relaxed_back", g, h, share, into, h.numel() // BLOCK, temperature, kl, units)
        return into, None, None, None


_TYPES: dict[str, list[Any]] = {
    "normalised": [*[c_void_p] * 5, c_double, *[c_void_p] * 3, c_size_t, c_size_t, c_int],
    "normalised_back": [*[c_void_p] * 5, c_size_t, c_size_t, c_int],
    "relaxed": [*[c_void_p] * 3, c_size_t, c_double, c_uint64, c_int],
    "relaxed_back": [*[c_void_p] * 4, c_size_t, c_double, c_double, c_int],
}


@functools.cache
def _library() -> dict[str, Any] | None:
    """The compiled functions, or None where they cannot be."""
    try:
        loaded = ctypes.CDLL(str(native.compiled("activate.c", BLOCK=BLOCK)))
    except (native.CompilerError, OSError):
        return None
    found = {}
    for name, types in _TYPES.items():
        found[name] = getattr(loaded, name)
        found[name].argtypes, found[name].restype = types, c_double if name == "relaxed" else None
    return found


def _call(name: str, *arguments: Tensor | float | None) -> Any:
    library = _library()
    assert library is not None, "`fits` says so"
    return library[name](*(given.data_ptr() if isinstance(given, Tensor) else given for given in arguments))
