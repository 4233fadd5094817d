"""An engine for a deployed network: built, checked against the network itself, and timed in the building."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.stochastic import is_hard, is_random, mean_network
from . import check_engine

TOLERANCE = 1e-4
"""Largest difference between an engine's probabilities and the network's own, where nothing is random."""
CHECKED = 4
"""Images on which they are compared."""

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Prepared:
    """A deployed network in the engine that runs it."""

    module: nn.Module
    """The network that the engine runs."""
    predict: Predict
    """Images `[N, C, H, W]` in [0, 1] -> probabilities `[N, classes]`."""
    engine: str
    """What runs: `eager`, `compile`, `cudagraph`, `onnxruntime`, or `onnxruntime with gate kernel`."""
    build_s: float
    """Time that building and checking took, s."""
    reason: str | None
    """Why it is not what was asked for; None where it is."""


def prepare(
    module: nn.Module, shape: tuple[int, int, int], device: torch.device, engine: str = "auto", *, seed: int = 0
) -> Prepared:
    """A deployed network in an engine; in eager torch, with the reason, where that engine cannot run it exactly.

    `auto` is the fastest exact engine of the device that needs no compilation of the network: onnxruntime on the CPU,
    CUDA graphs on a GPU. In onnxruntime, networks that are random or choose winners are compared with
    torch as mean networks, in which a rounding cannot change a winner.

    Args:
        module: A network that `deploy` returned, or any other for torch's engines.
        shape: C, H, W of an image.
        device: Where the module is.
        engine: One of `ENGINES`.
        seed: Of the engine's own draws; torch's engines go on with the network's.

    Raises:
        UserError: there is no such engine.
    """
    check_engine(engine)
    start = time.perf_counter()
    chosen = ("cudagraph" if device.type == "cuda" else "onnxruntime") if engine == "auto" else engine
    name, predict, reason = "eager", _eager(module), None
    if chosen != "eager":
        try:
            name, predict = _built(chosen, module, shape, device, seed)
        except Exception as error:  # what is thrown has no common type; the reason is written into the results
            reason = f"{chosen}: {str(error).partition(chr(10))[0]}"
    return Prepared(module, predict, name, time.perf_counter() - start, reason)


def _built(
    engine: str, module: nn.Module, shape: tuple[int, int, int], device: torch.device, seed: int
) -> tuple[str, Predict]:
    """An engine's name with its variant, and what to call.

    Raises:
        Exception: of any type, where it cannot be built, or does not return what the module does.
    """
    with torch.inference_mode():
        images = torch.rand((CHECKED, *shape), generator=torch.Generator().manual_seed(0)).to(device)
        if engine == "onnxruntime":
            return _onnxruntime(module, images, seed)
        compiled: Any = torch.compile(module) if engine == "compile" else _graphed(module, device)
        predict = _inference(compiled)
        if is_random(module) or is_hard(module):
            _compare(predict(images).sum(dim=1), torch.ones(CHECKED, device=device))
        else:
            _compare(predict(images), module(images))
    return engine, predict


def _onnxruntime(module: nn.Module, images: Tensor, seed: int) -> tuple[str, Predict]:
    """The network in onnxruntime, with fused gates where it can."""
    from . import draws  # noqa: F401 - registers its layers
    from .graph import model
    from .onnx_session import options, session

    shape = (images.shape[1], images.shape[2], images.shape[3])
    if images.device.type != "cpu":
        raise ValueError(f"onnxruntime needs the network on the CPU, but it is on {images.device}")
    if is_random(module) or is_hard(module):
        with mean_network(module):
            _compare(session(model(module, shape, seed=seed), options([]))(images), module(images))
        predict = session(model(module, shape, seed=seed), options([]))
        _compare(predict(images).sum(dim=1), torch.ones(CHECKED))
    else:
        predict = session(model(module, shape, seed=seed), options([]))
        _compare(predict(images), module(images))
    return "onnxruntime", predict


def _compare(found: Tensor, expected: Tensor) -> None:
    """Raise ValueError unless probabilities, or their sums, are as expected."""
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(f"probabilities must be within {TOLERANCE} of the network's, but differ by {difference:.2g}")


def _graphed(module: nn.Module, device: torch.device) -> Predict:
    from .cuda import graphed

    if device.type != "cuda":
        raise ValueError(f"CUDA graphs need a GPU, but the network is on {device}")
    return graphed(module, device)


def _eager(module: nn.Module) -> Predict:
    return _inference(module)


def _inference(module: Callable[[Tensor], Any]) -> Predict:
    """`module`, without a record for gradients."""

    def predict(images: Tensor) -> Tensor:
        with torch.inference_mode():
            probabilities: Tensor = module(images)
        return probabilities

    return predict
