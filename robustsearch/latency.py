"""Latency, the second objective: the time of one deployed prediction, all its draws included (docs/honesty.md)."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .engines.prepare import Predict, Prepared

WARM_UP = 10
BLOCKS = 5
RUNS = 30
"""Timed predictions at batch 1 in each block."""
THROUGHPUT_BATCH = 128
THROUGHPUT_RUNS = 5


@dataclass(frozen=True)
class Latency:
    """The latency columns of a results row."""

    latency_p50: float
    latency_p95: float
    throughput: float
    engine: str
    engine_reason: str | None
    engine_build_s: float
    threads: int
    macs: int
    parameters: int

    def row(self) -> dict[str, float | int | str | None]:
        """As columns."""
        return asdict(self)


@torch.inference_mode()
def measure(prepared: Prepared, shape: tuple[int, int, int], device: torch.device) -> Latency:
    """Time a deployed network, images `[N, C, H, W]` -> probabilities `[N, classes]`, in its engine.

    Inputs are random images of `shape` (C, H, W). Time alone on the device is the caller's to arrange (`quiet.Quiet`);
    against what else the machine does, both quantiles at batch 1 are those of the least disturbed of five blocks.
    """
    generator = torch.Generator(device).manual_seed(0)
    one = torch.rand((1, *shape), generator=generator, device=device)
    many = torch.rand((THROUGHPUT_BATCH, *shape), generator=generator, device=device)
    predict = prepared.predict
    _seconds(predict, one, WARM_UP, device)
    blocks = np.array([_seconds(predict, one, RUNS, device) for _ in range(BLOCKS)]) * 1e3
    single = min(blocks, key=np.median)
    batches = _seconds(predict, many, 1 + THROUGHPUT_RUNS, device)[1:]
    return Latency(
        latency_p50=float(np.quantile(single, 0.5)),
        latency_p95=float(np.quantile(single, 0.95)),
        throughput=THROUGHPUT_BATCH / float(np.median(batches)),
        engine=prepared.engine,
        engine_reason=prepared.reason,
        engine_build_s=prepared.build_s,
        threads=torch.get_num_threads(),
        macs=macs(prepared.module, one),
        parameters=sum(parameter.numel() for parameter in prepared.module.parameters()),
    )


def macs(module: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Multiply-accumulates of the convolutions and matrix products of one pass."""
    with FlopCounterMode(display=False) as counter:
        module(images)
    return int(counter.get_total_flops()) // 2


def device_name(device: torch.device | str) -> str:
    """The processor's name as its maker writes it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _seconds(predict: Predict, images: Tensor, runs: int, device: torch.device) -> list[float]:
    times = []
    for _ in range(runs):
        _synchronise(device)
        start = time.perf_counter()
        predict(images)
        _synchronise(device)
        times.append(time.perf_counter() - start)
    return times


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
