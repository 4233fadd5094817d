"""Timing contenders in turn, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from robustsearch.latency import device_name


def in_turn(
    contenders: dict[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, NDArray[np.float64]]:
    """CPU seconds `[rounds]` of each contender, all of them once in each round, after `warm_up` untimed rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(warm_up + rounds):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            if index >= warm_up:
                seconds[name].append(time.process_time() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values: NDArray[np.float64], digits: int = 3) -> str:
    """Median and quartiles, as text."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95% interval of the median, by the bootstrap."""
    draws = np.random.default_rng(seed).choice(values, (4000, len(values)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


def ratio(values: NDArray[np.float64], reference: NDArray[np.float64]) -> str:
    """Median of the ratios of each round, and its 95% interval, as text."""
    low, high = interval(values / reference)
    return f"{np.median(values / reference):.2f} [{low:.2f}, {high:.2f}]"


def machine(threads: int) -> str:
    """Hardware and versions, as text."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("robustsearch", "torch"))
    threads_are = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{packages}, Python {platform.python_version()}; {device_name('cpu')}, {threads_are}"
