"""Standard surrogates for classifiers that name none: what may stand between an attack and a useful gradient.

    temperature   every `temperature` or `tau` below 1 that a module holds is 1: cold gates become smooth
    identity      a layer without parameters that lets no gradient through, yet returns about what it was given (it
                  rounds, or steps), is the identity in the backward pass: BPDA (Athalye et al. 2018, 1802.00420,
                  section 4.1)

The third, the mean over draws, needs no surrogate: every random classifier is attacked so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks.gradient import crafting
from ..errors import UserError
from ..models.stochastic import stochastic_layers
from ..models.stochastic import surrogate as stochastic_surrogate
from .subject import Surrogate

TEMPERATURES = ("temperature", "tau")
CLOSE = 0.25
"""A layer returns about what it was given if |output - input| is at most this share of |input|, both summed."""


def declared_surrogate(model: nn.Module) -> Surrogate | None:
    """The surrogate that a model names: its method `surrogate()`, or that of our own stochastic layers.

    Raises:
        UserError: the method is none, or returns no context manager.
    """
    hook = getattr(model, "surrogate", None)
    if hook is not None:
        if not callable(hook) or not isinstance(made := hook(), AbstractContextManager):
            raise UserError(f"`surrogate()` must be a method that returns a context manager, but got {hook!r}")
        del made
        return hook  # type: ignore[no-any-return]
    return partial(stochastic_surrogate, model) if stochastic_layers(model) else None


def standard_surrogates(model: nn.Module, images: Tensor) -> dict[str, Surrogate]:
    """Those of the standard surrogates that would change this model, by name; images `[N, C, H, W]` to try it on."""
    found: dict[str, Surrogate] = {}
    if _cold(model):
        found["temperature"] = partial(_warmed, model)
    if opaque := _opaque_layers(model, images):
        found["identity"] = partial(_straight_through, opaque)
    return found


def _cold(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Modules with their temperatures below 1: numbers, or tensors."""
    return [
        (module, name, value)
        for module in model.modules()
        for name, value in {**vars(module), **module._parameters, **module._buffers}.items()
        if name in TEMPERATURES and isinstance(value, float | int | Tensor) and bool((torch.as_tensor(value) < 1).any())
    ]


@contextmanager
def _warmed(model: nn.Module) -> Iterator[None]:
    cold = _cold(model)
    before = [value.detach().clone() if isinstance(value, Tensor) else value for _, _, value in cold]
    try:
        for module, name, value in cold:
            if isinstance(value, Tensor):
                value.data.clamp_(min=1)
            else:
                setattr(module, name, 1.0)
        yield
    finally:
        for (module, name, value), old in zip(cold, before, strict=True):
            if isinstance(value, Tensor):
                value.data.copy_(old)
            else:
                setattr(module, name, old)


def _opaque_layers(model: nn.Module, images: Tensor) -> list[nn.Module]:
    """Layers without parameters whose output resembles their input and has no slope in it."""
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            seen[layer] = inputs[0].detach(), output.detach()

    bare = [layer for layer in model.modules() if not [*layer.parameters(), *layer.children()]]
    with crafting(model):
        with _hooks(bare, look), torch.no_grad():
            model(images)
        return [layer for layer, (x, y) in seen.items() if _resembles(x, y) and _is_flat(layer, x)]


def _resembles(x: Tensor, y: Tensor) -> bool:
    if not x.is_floating_point() or x.shape != y.shape or torch.equal(x, y):
        return False
    return float((y - x).abs().sum()) <= CLOSE * float(x.abs().sum())


def _is_flat(layer: nn.Module, x: Tensor) -> bool:
    """Whether the slope of the layer's output is below 1e-3 in most entries of its input."""
    x = x.clone().requires_grad_()
    y = layer(x)
    if not y.requires_grad:
        return True
    (slope,) = torch.autograd.grad(y.sum(), x, materialize_grads=True)
    return float((slope.abs() < 1e-3).float().mean()) > 0.5


@contextmanager
def _straight_through(layers: list[nn.Module]) -> Iterator[None]:
    def through(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        x: Tensor = inputs[0]
        return x + (output - x).detach()

    with _hooks(layers, through):
        yield


@contextmanager
def _hooks(layers: list[nn.Module], hook: Any) -> Iterator[None]:
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
