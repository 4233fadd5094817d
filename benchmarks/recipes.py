"""What each recipe reaches: `python -m benchmarks.recipes [--dataset digits] [--seeds 3]`.

Trains every recipe of the methods on a small network and prints a Markdown table: natural accuracy and robust accuracy
under protocol `standard` (through the surrogates) on validation images, as mean and range over the seeds with the 95%
interval over images and seeds, and for parametric noise what its alphas have become. All attacks in training have the
same epsilon, that of the evaluation, and the same number of PGD steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from robustsearch import data
from robustsearch.evaluation.protocols import protocol
from robustsearch.latency import device_name
from robustsearch.membership import Z95, pool
from robustsearch.models.pni import PNILayer
from robustsearch.recipe import IBP, LWTA, PNI, Attack, Mix, Model, Recipe, Smoothing, Training
from robustsearch.trial import Plan, Trial

CPU = torch.device("cpu")
CLEAN = Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0)
PGD = Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0)
FGSM_RS = Mix(clean=0, noise=0, fgsm=0, pgd=0, cw=0, fgsm_rs=1)


def recipes(depth: int, epochs: int, epsilon: float, lr: float) -> dict[str, Recipe]:
    """The recipes by name."""

    def recipe(mix: Mix, training: dict[str, Any] | None = None, **parts: Any) -> Recipe:
        return Recipe(
            model=Model(depth=depth),
            mix=mix,
            attack=Attack(epsilon=epsilon, steps=5, step=epsilon / 2, warmup=0.25),
            training=Training(epochs=epochs, lr=lr, **(training or {})),
            **parts,
        )

    return {
        "plain": recipe(CLEAN),
        "the report's mix": recipe(Mix()),
        "PGD": recipe(PGD),
        "PGD, early stopping (patience 3)": recipe(PGD, {"patience": 3}),
        "TRADES, beta 6": recipe(PGD, {"trades": 6.0}),
        "PGD + AWP 0.005": recipe(PGD, {"awp": 0.005}),
        "FGSM-RS": recipe(FGSM_RS),
        "PNI (weights, layer), clean": recipe(CLEAN, pni=PNI()),
        "PNI (weights, layer), PGD": recipe(PGD, {"clean_weight": 0.5}, pni=PNI()),
        "PNI (weights, channel), PGD": recipe(PGD, {"clean_weight": 0.5}, pni=PNI(granularity="channel")),
        "smoothing 0.1, PGD, K = 4": recipe(PGD, smoothing=Smoothing(sigma=0.1), draws=4),
        "LWTA-2 sample, PGD": recipe(PGD, lwta=LWTA(kl_weight=0.1)),
        "LWTA-2 mean, PGD": recipe(PGD, lwta=LWTA(kl_weight=0.1, gate="mean")),
        "LWTA-4 mean, PGD": recipe(PGD, lwta=LWTA(units=4, kl_weight=0.1, gate="mean")),
        "LWTA-2 mean + IBP, PGD": recipe(PGD, lwta=LWTA(gate="mean", ibp=IBP())),
    }


@dataclass(frozen=True)
class Job:
    """One training."""

    name: str
    seed: int
    dataset: str
    fraction: float
    depth: int
    epochs: int
    lr: float


def run(job: Job) -> dict[str, Any]:
    """The last row of a trial, with its alphas and its time."""
    torch.set_num_threads(1)
    dataset = data.load(job.dataset, fraction=job.fraction)
    recipe = recipes(job.depth, job.epochs, dataset.epsilon, job.lr)[job.name]
    start = time.process_time()
    trial = Trial(recipe, job.seed, dataset, Plan((), protocol("standard"), dataset.epsilon, dataset.epsilon_l2), CPU)
    while not trial.done:
        trial.advance()
    trial.close()
    alphas = [
        layer.alpha.detach().abs().mean().item() for layer in trial.network.modules() if isinstance(layer, PNILayer)
    ]
    return trial.rows[-1] | {
        "trial": job.name,
        "role": "repeat" if job.seed else "search",
        "digest": recipe.digest,
        "recipe": recipe.to_json(),
        "seconds": time.process_time() - start,
        "ended": trial.ended,
        "alpha": mean(alphas) if alphas else None,
    }


def lines(rows: list[dict[str, Any]], names: list[str]) -> Iterator[str]:
    """The table, in Markdown."""
    yield "| recipe | natural % | robust % [95%] | seeds | PNI alpha (mean) | blocks kept % | CPU s |"
    yield "|---|---|---|---|---|---|---|"
    for name in names:
        mine = [row for row in rows if row["trial"] == name]
        last = [row | {"epoch": 0} for row in mine]  # early stopping may end seeds at different epochs
        (point,) = pool(last)
        error = Z95 * point.error
        robust = " / ".join(f"{100 * row['robust']:.1f}" for row in mine)
        alphas = [row["alpha"] for row in mine if row["alpha"] is not None]
        kept = [row["blocks_kept"] for row in mine if row["blocks_kept"] is not None]
        yield (
            f"| {name} | {100 * mean(row['natural'] for row in mine):.1f} | {100 * point.robust:.1f} "
            f"[{100 * max(0, point.robust - error):.1f}, {100 * min(1, point.robust + error):.1f}] | {robust} | "
            f"{f'{mean(alphas):.3f}' if alphas else ''} | {f'{100 * mean(kept):.0f}' if kept else ''} | "
            f"{mean(row['seconds'] for row in mine):.0f} |"
        )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", metavar="NAME")
    parser.add_argument("--fraction", type=float, default=1.0, metavar="F")
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    given = parser.parse_args()
    dataset = data.load(given.dataset, fraction=given.fraction)
    names = list(recipes(given.depth, given.epochs, dataset.epsilon, given.lr))
    jobs = [
        Job(name, seed, given.dataset, given.fraction, given.depth, given.epochs, given.lr)
        for name in names
        for seed in range(given.seeds)
    ]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(given.processes) as workers:
        for row in workers.map(run, jobs):
            rows.append(row)
            ended = f", ended: {row['ended']}" if row["ended"] else ""
            print(f"{len(rows)}/{len(jobs)} {row['trial']}: robust {row['robust']:.3f}{ended}", flush=True)
    places = f"{Path(given.dataset).stem}, {len(dataset.train)} training images, {given.epochs} epochs"
    versions = f"torch {version('torch')}, {device_name(CPU)}, one thread"
    print(f"\nWRN-{given.depth}-1, {places}, epsilon {dataset.epsilon:.4g}, n = {rows[0]['n']}; {versions}\n")
    print("\n".join(lines(rows, names)))


if __name__ == "__main__":
    main()
