"""An engine for a deployed network: built, checked against the network itself, and timed in the building."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.deploy import Deployed
from ..models.lwta import LWTA
from ..models.stochastic import is_hard, is_random, mean_network
from . import check_engine

TOLERANCE = 1e-4
"""Largest difference between an engine's probabilities and the network's own, where nothing is random."""
LOGIT = 10.0
"""Logits larger than this are rounded by more, and allow a larger difference in proportion."""
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
    """What runs: one of `ENGINES`, but not `auto`."""
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
    name, predict, reasons = "eager", _inference(module), []
    for candidate in _candidates(engine, module, device):
        try:
            predict = _built(candidate, module, shape, device, seed)
        except Exception as error:  # what is thrown has no common type; the reason is written into the results
            reasons.append(f"{candidate}: {str(error).partition(chr(10))[0]}")
        else:
            name = candidate
            break
    return Prepared(module, predict, name, time.perf_counter() - start, "; ".join(reasons) or None)


def _candidates(engine: str, module: nn.Module, device: torch.device) -> tuple[str, ...]:
    """Engines to try before eager torch, the fastest first."""
    if engine == "eager":
        return ()
    if engine != "auto":
        return (engine,)
    if device.type == "cuda":
        return ("cudagraph",)
    gates = any(isinstance(layer, LWTA) for layer in module.modules())
    return ("onnxruntime-kernel", "onnxruntime") if gates else ("onnxruntime",)


@torch.inference_mode()
def _built(engine: str, module: nn.Module, shape: tuple[int, int, int], device: torch.device, seed: int) -> Predict:
    """What to call.

    Raises:
        Exception: of any type, where it cannot be built, or does not return what the module does.
    """
    images = torch.rand((CHECKED, *shape), generator=torch.Generator().manual_seed(0)).to(device)
    predict = _BUILD[engine](module, shape, device, seed)
    found = predict(images)
    if not (is_random(module) or is_hard(module)):
        _compare(module, images, found)
        return predict
    if not torch.allclose(found.sum(dim=1), torch.ones(CHECKED, device=device), atol=TOLERANCE):
        raise ValueError(f"probabilities must sum to 1, but got {found.sum(dim=1).tolist()}")
    if engine.startswith("onnxruntime"):
        with mean_network(module):
            _compare(module, images, _BUILD[engine](module, shape, device, seed)(images))
    return predict


def _compare(module: nn.Module, images: Tensor, found: Tensor) -> None:
    """Raise ValueError unless probabilities are those of the module, as far as the rounding of its logits allows."""
    largest = float(module.layers(images).abs().max()) if isinstance(module, Deployed) else 0.0
    allowed = TOLERANCE * max(1.0, largest / LOGIT)
    difference = float((found - module(images)).abs().max())
    if not difference <= allowed:
        raise ValueError(f"probabilities must be within {allowed:.2g} of the network's, but differ by {difference:.2g}")


def _onnxruntime(module: nn.Module, shape: tuple[int, int, int], device: torch.device, seed: int) -> Predict:
    from .onnx_model import model
    from .onnx_session import session

    return session(model(module, shape, seed=seed), device)


def _kernel(module: nn.Module, shape: tuple[int, int, int], device: torch.device, seed: int) -> Predict:
    from . import kernel
    from .onnx_session import session

    return session(kernel.model(module, shape, seed=seed), device, kernel.library())


def _compile(module: nn.Module, shape: tuple[int, int, int], device: torch.device, seed: int) -> Predict:
    return _inference(torch.compile(module))


def _cudagraph(module: nn.Module, shape: tuple[int, int, int], device: torch.device, seed: int) -> Predict:
    from .cuda import graphed

    return _inference(graphed(module, device))


_BUILD = {"onnxruntime": _onnxruntime, "onnxruntime-kernel": _kernel, "compile": _compile, "cudagraph": _cudagraph}


def _inference(module: Callable[[Tensor], Any]) -> Predict:
    """`module`, without a record for gradients."""

    def predict(images: Tensor) -> Tensor:
        with torch.inference_mode():
            probabilities: Tensor = module(images)
        return probabilities

    return predict
