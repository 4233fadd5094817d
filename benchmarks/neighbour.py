"""Whether a busy neighbour moves the latency of a trial: `python -m benchmarks.neighbour`.

A second process trains WRN-34-1 on digits, as a trial does, in stretches of `Quiet.working`. Each round times one
deployed network three times: while the neighbour rests, while it trains and the timing is `Quiet.alone`, and while it
trains and nobody asks. Prints a Markdown table: the median over rounds with its quartiles, and the median over rounds
of the ratio to that round's rest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import tempfile
from contextlib import nullcontext
from importlib.metadata import version
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import torch

from benchmarks.prediction import CPU, network
from robustsearch import data
from robustsearch.engines.prepare import prepare
from robustsearch.latency import Latency, device_name, measure
from robustsearch.models.deploy import deploy
from robustsearch.quiet import Quiet
from robustsearch.recipe import Recipe
from robustsearch.training.loop import Trainer

SPAWN = multiprocessing.get_context("spawn")
FIGURES = ("latency_p50", "latency_p95", "throughput")


def neighbour(folder: Path, busy: Event, resting: Event, over: Event) -> None:
    """Train while `busy` is set, and say when it rests."""
    torch.set_num_threads(1)
    quiet, dataset = Quiet("benchmark", folder), data.load("digits", fraction=0.2)
    trainer = Trainer(network({"lwta": {}}, 34, dataset.shape).train(), Recipe.of({"lwta": {}}), dataset, 0, CPU)
    while not over.is_set():
        if busy.is_set():
            resting.clear()
            trainer.run_epoch(quiet.working)
        else:
            resting.set()
            busy.wait(0.1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="timings of each kind")
    parser.add_argument("--engine", default="auto", help="what runs the timed network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shape = (1, 8, 8)
    prepared = prepare(deploy(network({"lwta": {}}, 34, shape), 1), shape, CPU, arguments.engine)
    found: dict[str, list[Latency]] = {"resting": [], "training, alone": [], "training, not alone": []}
    with tempfile.TemporaryDirectory() as folder:
        busy, resting, over = SPAWN.Event(), SPAWN.Event(), SPAWN.Event()
        other = SPAWN.Process(target=neighbour, args=(Path(folder), busy, resting, over), daemon=True)
        other.start()
        quiet = Quiet("benchmark", Path(folder))
        for _ in range(arguments.rounds):
            for kind, latencies in found.items():
                if kind == "resting":
                    busy.clear()
                    resting.wait()
                else:
                    busy.set()
                    while resting.is_set():
                        pass
                with quiet.alone() if kind == "training, alone" else nullcontext():
                    latencies.append(measure(prepared, shape, CPU))
        over.set()
        other.join()
        quiet.close()
    packages = ", ".join(f"{name} {version(name)}" for name in ("robustsearch", "torch", "onnxruntime"))
    print(
        f"{packages}, Python {platform.python_version()}; {device_name(CPU)}, 1 thread each; LWTA-2 sample, WRN-34-1, "
        f"{shape}, {prepared.engine}; n = {arguments.rounds}\n"
    )
    print("| neighbour | p50 ms | p95 ms | images/s |\n|---|---|---|---|")
    rest = {name: np.array([getattr(latency, name) for latency in found["resting"]]) for name in FIGURES}
    for kind, latencies in found.items():
        cells = []
        for name in FIGURES:
            values = np.array([getattr(latency, name) for latency in latencies])
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            cells.append(f"{middle:.4g} [{low:.4g}, {high:.4g}] ({np.median(values / rest[name]):.3f})")
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
