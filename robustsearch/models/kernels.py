"""`native/layers.c` on tensors: whether it can be used, and its calls."""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_double, c_int, c_size_t, c_uint64, c_void_p
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .. import native

Kind = TypeVar("Kind", bound=nn.Module)
BLOCK = 8
"""Channels in a vector."""
WIDE = 2 * BLOCK
"""Channels that are convolved at once; a result has a multiple of them."""
_CONVOLUTION = [c_size_t] * 6
"""Rows, columns, channels in and out, kernel, stride."""
_TYPES: dict[str, tuple[Any, list[Any]]] = {
    "affine": (None, [*[c_void_p] * 4, c_double, c_void_p, c_size_t]),
    "normalised": (None, [*[c_void_p] * 4, c_size_t, c_size_t, c_int]),
    "normalised_back": (None, [*[c_void_p] * 5, c_size_t, c_size_t, c_int]),
    "relaxed": (c_double, [*[c_void_p] * 3, c_size_t, c_double, c_uint64, c_int]),
    "relaxed_back": (None, [*[c_void_p] * 4, c_size_t, c_double, c_double, c_int]),
    "convolution_room": (c_size_t, _CONVOLUTION),
    "convolve": (None, [*[c_void_p] * 4, c_size_t, *_CONVOLUTION]),
    "convolve_back": (None, [*[c_void_p] * 4, c_size_t, *_CONVOLUTION]),
    "convolve_filters": (None, [*[c_void_p] * 4, c_size_t, *_CONVOLUTION]),
    "block_room": (c_size_t, [c_size_t] * 6),
    "block": (None, [*[c_void_p] * 11, *[c_size_t] * 6, c_int]),
    "block_back": (None, [*[c_void_p] * 12, *[c_size_t] * 6, c_int]),
}


def usable(x: Tensor) -> bool:
    """Whether kernels can read a tensor now: float32 on a CPU, one thread, a C compiler here, and nobody looks on."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or type(x) is not Tensor or _intercepted() or x.is_neg():
        return False
    return torch.get_num_threads() == 1 and _library() is not None


def _intercepted() -> bool:
    """Whether something works on torch's own operations: compiler, tracer, counter, functorch, forward-mode AD."""
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def unaltered(module: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether a module is of this very class, and does what that does."""
    return type(module) is kind and "forward" not in vars(module)


@functools.cache
def convolves_faster() -> bool:
    """Whether convolutions are faster than torch's on this processor.

    They were measured with AVX2. torch has code of its own for AVX-512, and for other processors than x86.
    """
    words = set(native.abilities().split())
    return words >= {"avx2", "fma"} and "avx512f" not in words


def call(name: str, *arguments: Tensor | float | None) -> Any:
    """Call one of `layers.c`; tensors are given as their memory, and None as NULL.

    It is for tensors that are `usable`.
    """
    library = _library()
    assert library is not None
    return library[name](*(given.data_ptr() if isinstance(given, Tensor) else given for given in arguments))


def room(name: str, *sizes: int) -> Tensor:
    """What a kernel works in: as many floats as the function of that name says."""
    return torch.empty(_floats(name, *sizes), dtype=torch.float32, device="cpu")


@functools.lru_cache(maxsize=256)
def _floats(name: str, *sizes: int) -> int:
    count: int = call(name, *sizes)
    return count


@functools.cache
def _library() -> dict[str, Any] | None:
    """The compiled functions, or None where they cannot be."""
    try:
        loaded = ctypes.CDLL(str(native.compiled("layers.c", BLOCK=BLOCK)))
    except (native.CompilerError, OSError):
        return None
    found = {}
    for name, (result, types) in _TYPES.items():
        found[name] = getattr(loaded, name)
        found[name].argtypes, found[name].restype = types, result
    return found
