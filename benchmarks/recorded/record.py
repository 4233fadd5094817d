"""Train and attack every recipe of the grid: `python -m benchmarks.recorded.record --out DIR [--part I/N]`.

Each recipe is one Parquet file of DIR, so the command goes on where it was stopped, and several may share the work.
`--pack FILE` then times the deployed form of each network structure (on a quiet machine), writes it into every row of
that structure, as latency does not depend on how a network was trained, and packs all rows into one file.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.recorded.grid import EPOCHS, EPSILON, MEASURED, recipes
from robustsearch import data, results
from robustsearch.data import Dataset
from robustsearch.engines.prepare import prepare
from robustsearch.errors import DivergedError
from robustsearch.evaluation.protocols import protocol
from robustsearch.evaluation.robust import evaluate
from robustsearch.latency import device_name, measure
from robustsearch.models.build import network_for
from robustsearch.models.deploy import deploy
from robustsearch.recipe import Recipe
from robustsearch.search.ledger import versions
from robustsearch.seeds import derive
from robustsearch.training.loop import Trainer
from robustsearch.trial import sample

SEED = 0
TRAINED = 288
"""Training images, a quarter of digits."""
_QUICK = protocol("quick")
PROTOCOL = replace(_QUICK, images=100, adversaries=tuple(one for one in _QUICK.adversaries if one.norm == "linf"))
"""`quick` with half of its images, and without CW, which no objective counts."""
ROUNDS = 8
"""How often each structure is timed; the fastest of its timings counts."""
CPU = torch.device("cpu")


def network(recipe: Recipe, dataset: Dataset) -> Any:
    """The untrained network of a recipe."""
    return network_for(recipe, dataset, seed=derive(SEED, "network"))


def record(heads: dict[str, Recipe], dataset: Dataset, folder: Path) -> None:
    """Train recipes, by name, that differ in gate and draws only, and measure each of them; times are those of the CPU.

    Every one of them is charged the whole training.
    """
    first = next(iter(heads.values()))
    trainer = Trainer(net := network(first, dataset), first, dataset, SEED, CPU)
    images, labels = sample(dataset.validation, PROTOCOL.images, CPU)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in heads}
    train_s, eval_s = 0.0, dict.fromkeys(heads, 0.0)
    state, reason = "completed", None
    for epoch in range(1, EPOCHS + 1):
        start = time.process_time()
        try:
            losses = trainer.run_epoch()
        except DivergedError as error:
            state, reason = "diverged", str(error)
            for found in rows.values():
                found.append({"epoch": epoch - 1})
            break
        train_s += time.process_time() - start
        if epoch not in MEASURED:
            continue
        before = net.noise.state()
        for name, recipe in heads.items():
            start = time.process_time()
            if recipe.lwta:
                net.set_gate(recipe.lwta.gate)
            net.noise.seed(derive(SEED, "scoring", epoch))
            row = evaluate(
                net,
                images,
                labels,
                protocol=PROTOCOL,
                epsilon=EPSILON,
                epsilon_l2=dataset.epsilon_l2,
                draws=recipe.draws,
                seed=SEED,
            )
            eval_s[name] += time.process_time() - start
            rows[name].append(
                row | {"epoch": epoch, "train_loss": losses["loss"], "train_s": train_s, "eval_s": eval_s[name]}
            )
        net.noise.load_state(before)
    shared = {
        "run": "recorded",
        "role": "search",
        "seed": SEED,
        "dataset": dataset.name,
        "split": "validation",
        "protocol": PROTOCOL.name,
        "device": device_name(CPU),
        "versions": ", ".join(f"{key} {value}" for key, value in versions().items()),
        "state": state,
        "reason": reason,
    }
    for name, recipe in heads.items():
        own = {"trial": name, "digest": recipe.digest, "recipe": recipe.to_json()} | recipe.flat()
        results.write_trial(folder, name, [row | shared | own for row in rows[name]])


def trainings() -> list[dict[str, Recipe]]:
    """Recipes of the grid by name, those together that are trained alike; in an order that is a sample at any time."""
    groups: dict[str, dict[str, Recipe]] = {}
    for number, recipe in enumerate(recipes()):
        alike = recipe.replace(**({"draws": 1, "lwta.gate": "mean"} if recipe.lwta else {}))
        groups.setdefault(alike.digest, {})[f"{number:04d}"] = recipe
    found = list(groups.values())
    Random(0).shuffle(found)
    return found


def small(dataset: Dataset) -> Dataset:
    """The first `TRAINED` training images alone."""
    return replace(dataset, train=dataset.train.take(np.arange(TRAINED)))


def pack(folder: Path, file: Path, dataset: Dataset) -> None:
    """Time each structure, and write all rows into one file."""
    table = results.read(folder)
    rows = table.to_pylist()
    structures = {recipe.describe(): recipe for recipe in (Recipe.from_json(row["recipe"]) for row in rows)}
    engines = {
        words: prepare(deploy(network(recipe, dataset).eval(), recipe.draws), dataset.shape, CPU)
        for words, recipe in structures.items()
    }
    timed: dict[str, dict[str, Any]] = {}
    for _ in range(ROUNDS):  # in turn, so that what disturbs one of them is over when it comes again
        for words, engine in engines.items():
            found = measure(engine, dataset.shape, CPU).row()
            if words not in timed or found["latency_p50"] < timed[words]["latency_p50"]:
                timed[words] = found
    for words, found in timed.items():
        print(f"{words}: p50 {found['latency_p50']:.3f} ms", flush=True)
    for row in rows:
        if row["robust"] is not None:
            row |= timed[Recipe.from_json(row["recipe"]).describe()]
    pq.write_table(table.from_pylist(rows, schema=results.SCHEMA), file, compression="zstd", compression_level=19)
    print(
        f"{file}: {len({row['trial'] for row in rows})} recipes, {len(rows)} rows, {file.stat().st_size / 1e6:.2f} MB"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="one file a recipe")
    parser.add_argument("--part", default="0/1", metavar="I/N", help="this process's share of the work")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="time, and pack what DIR holds")
    parser.add_argument("--minutes", type=float, default=inf, metavar="M", help="start no training after so long")
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset = small(data.load("digits"))
    if given.pack:
        pack(given.out, given.pack, dataset)
        return
    part, parts = map(int, given.part.split("/"))
    mine = [heads for heads in trainings()[part::parts] if not all(written(given.out, name) for name in heads)]
    start = time.monotonic()
    for done, heads in enumerate(mine, 1):
        if time.monotonic() - start > 60 * given.minutes:
            break
        record(heads, dataset, given.out)
        left = (time.monotonic() - start) / done * (len(mine) - done)
        words = next(iter(heads.values())).describe()
        print(f"{done}/{len(mine)}  {', '.join(heads)}  {words}  ~{left / 60:.0f} min left", flush=True)


def written(folder: Path, name: str) -> bool:
    """Whether a recipe has been recorded."""
    return (folder / f"{name}.parquet").exists()


if __name__ == "__main__":
    main()
