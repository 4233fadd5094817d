"""What each recipe reaches: `python -m benchmarks.recipes [--dataset digits] [--seeds 3]`.

Trains every recipe of the methods on a small network and prints a Markdown table: natural accuracy and adaptive robust
accuracy (through the surrogates) on 200 validation images, as mean and range over the seeds with the 95% interval over
images and seeds, and for parametric noise what its alphas have become. All attacks in training have the same epsilon,
that of the evaluation, and the same number of PGD steps.

With `--rows FILE` each training is kept as it ends, one JSON line each, and is not made again; with `--minutes M` none
begins after that time. So a long table is made in pieces: the same command again goes on, and prints what there is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from robustsearch import data
from robustsearch.data import Dataset
from robustsearch.data.stratify import divide
from robustsearch.evaluation.protocols import PROTOCOLS, protocol
from robustsearch.latency import device_name
from robustsearch.membership import Z95, pool
from robustsearch.models.pni import PNILayer
from robustsearch.recipe import IBP, LWTA, PNI, Attack, Mix, Model, Recipe, Smoothing, Training
from robustsearch.trial import Plan, Trial

CPU = torch.device("cpu")
CLEAN = Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0)
PGD = Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0)
FGSM_RS = Mix(clean=0, noise=0, fgsm=0, pgd=0, cw=0, fgsm_rs=1)


@dataclass(frozen=True)
class Settings:
    """What all trainings of a table share."""

    dataset: str
    fraction: float
    """Share of the training images."""
    depth: int
    epochs: int
    batch_size: int
    lr: float
    steps: int
    """PGD steps in training, of 2.5 epsilon in all."""
    protocol: str

    def data(self) -> Dataset:
        """The dataset, with all its validation images."""
        whole = data.load(self.dataset)
        return replace(whole, train=divide(whole.train, round(self.fraction * len(whole.train)))[0])


def recipes(settings: Settings, epsilon: float) -> dict[str, Recipe]:
    """The recipes by name, for attacks of radius `epsilon`."""

    def recipe(mix: Mix, training: dict[str, Any] | None = None, **parts: Any) -> Recipe:
        return Recipe(
            model=Model(depth=settings.depth),
            mix=mix,
            attack=Attack(epsilon=epsilon, steps=settings.steps, step=2.5 * epsilon / settings.steps, warmup=0.25),
            training=Training(
                epochs=settings.epochs, batch_size=settings.batch_size, lr=settings.lr, **(training or {})
            ),
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
    settings: Settings
    until: float
    """Clock of `time.time` after which it does not begin."""


def run(job: Job) -> dict[str, Any] | None:
    """The last row of a trial, with its alphas and its time; None where it is too late to begin."""
    if time.time() > job.until:
        return None
    torch.set_num_threads(1)
    dataset = job.settings.data()
    recipe = recipes(job.settings, dataset.epsilon)[job.name]
    plan = Plan((), protocol(job.settings.protocol), dataset.epsilon, dataset.epsilon_l2)
    start = time.process_time()
    trial = Trial(recipe, job.seed, dataset, plan, CPU)
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
        "settings": asdict(job.settings),
        "seconds": time.process_time() - start,
        "ended": trial.ended,
        "alpha": mean(alphas) if alphas else None,
    }


def kept(path: Path | None, settings: Settings, digests: dict[str, str]) -> list[dict[str, Any]]:
    """Rows of an earlier call with the same settings, of recipes that are still the same."""
    if path is None or not path.exists():
        return []
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["settings"] == asdict(settings) and digests.get(row["trial"]) == row["digest"]]


def lines(rows: list[dict[str, Any]], names: list[str]) -> Iterator[str]:
    """The table, in Markdown."""
    yield "| recipe | natural % | robust % [95%] | seeds | PNI alpha (mean) | blocks kept % | CPU s |"
    yield "|---|---|---|---|---|---|---|"
    for name in names:
        mine = sorted((row for row in rows if row["trial"] == name), key=lambda row: int(row["seed"]))
        if not mine:
            continue
        last = [row | {"epoch": 0} for row in mine]  # early stopping may end seeds at different epochs
        (point,) = pool(last)
        error = Z95 * point.error
        robust = " / ".join(f"{100 * row['robust']:.1f}" for row in mine)
        alphas = [row["alpha"] for row in mine if row["alpha"] is not None]
        blocks = [row["blocks_kept"] for row in mine if row["blocks_kept"] is not None]
        yield (
            f"| {name} | {100 * mean(row['natural'] for row in mine):.1f} | {100 * point.robust:.1f} "
            f"[{100 * max(0, point.robust - error):.1f}, {100 * min(1, point.robust + error):.1f}] | {robust} | "
            f"{f'{mean(alphas):.3f}' if alphas else ''} | {f'{100 * mean(blocks):.0f}' if blocks else ''} | "
            f"{mean(row['seconds'] for row in mine):.0f} |"
        )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", metavar="NAME")
    parser.add_argument("--fraction", type=float, default=1.0, metavar="F", help="share of the training images")
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128, metavar="N")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=5, help="PGD steps in training")
    parser.add_argument("--protocol", default="standard", choices=PROTOCOLS)
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="where trainings are kept, to go on from")
    parser.add_argument("--minutes", type=float, default=float("inf"), metavar="M", help="no training begins after")
    return parser.parse_args()


def main() -> None:
    """The command."""
    given = arguments()
    settings = Settings(
        given.dataset,
        given.fraction,
        given.depth,
        given.epochs,
        given.batch_size,
        given.lr,
        given.steps,
        given.protocol,
    )
    dataset = settings.data()
    digests = {name: recipe.digest for name, recipe in recipes(settings, dataset.epsilon).items()}
    rows = kept(given.rows, settings, digests)
    there = {(row["trial"], row["seed"]) for row in rows}
    wanted = [(name, seed) for seed in range(given.seeds) for name in digests]
    until = time.time() + 60 * given.minutes
    jobs = [Job(name, seed, settings, until) for name, seed in wanted if (name, seed) not in there]
    with ProcessPoolExecutor(given.processes) as workers:
        for row in workers.map(run, jobs):
            if row is None:
                continue
            rows.append(row)
            if given.rows:
                with given.rows.open("a") as file:
                    print(json.dumps(row), file=file)
            ended = f", ended: {row['ended']}" if row["ended"] else ""
            print(f"{len(rows)}/{len(wanted)} {row['trial']}: robust {row['robust']:.3f}{ended}", flush=True)
    if not rows:
        return
    images = f"{Path(given.dataset).stem}, {len(dataset.train)} training images, {given.epochs} epochs"
    training = f"batches of {given.batch_size}, {given.steps} PGD steps, epsilon {dataset.epsilon:.4g}"
    scoring = f"protocol {given.protocol}, n = {rows[0]['n']}"
    versions = f"torch {version('torch')}, {device_name(CPU)}, one thread"
    print(f"\nWRN-{given.depth}-1, {images}, {training}; {scoring}; {versions}\n")
    print("\n".join(lines(rows, list(digests))))


if __name__ == "__main__":
    main()
