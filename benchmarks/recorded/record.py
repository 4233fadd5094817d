"""Train and attack every recipe of the grid: `python -m benchmarks.recorded.record --out DIR [--part I/N]`.

Each recipe is one Parquet file of DIR, so the command goes on where it was stopped, and several may share the work.
`--pack FILE` then times the deployed form of each network structure (on a quiet machine), writes it into every row of
that structure, as latency does not depend on how a network was trained, and packs all rows into one file.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.recorded.grid import EPOCHS, MEASURED, recipes
from robustsearch import data, results
from robustsearch.data import Dataset
from robustsearch.engines.prepare import prepare
from robustsearch.errors import DivergedError
from robustsearch.evaluation.protocols import protocol
from robustsearch.evaluation.robust import evaluate
from robustsearch.latency import device_name, measure
from robustsearch.models.build import build_network
from robustsearch.models.deploy import deploy
from robustsearch.recipe import Recipe
from robustsearch.search.ledger import versions
from robustsearch.seeds import derive
from robustsearch.training.loop import Trainer
from robustsearch.trial import sample

SEED = 0
IMAGES = 100
"""Validation images, half of what `quick` takes."""
ROUNDS = 8
"""How often each structure is timed; the fastest of its timings counts."""
CPU = torch.device("cpu")


def network(recipe: Recipe, dataset: Dataset) -> Any:
    """The untrained network of a recipe."""
    return build_network(
        recipe,
        shape=dataset.shape,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        seed=derive(SEED, "network"),
    )


def record(recipe: Recipe, dataset: Dataset, folder: Path, name: str) -> None:
    """Train one recipe to its end and measure it after some epochs; times are those of the processor."""
    trainer = Trainer(net := network(recipe, dataset), recipe, dataset, SEED, CPU)
    quick = replace(protocol("quick"), images=IMAGES)
    images, labels = sample(dataset.validation, quick.images, CPU)
    shared = {
        "run": "recorded",
        "trial": name,
        "role": "search",
        "seed": SEED,
        "digest": recipe.digest,
        "recipe": recipe.to_json(),
        "dataset": dataset.name,
        "split": "validation",
        "protocol": quick.name,
        "device": device_name(CPU),
        "versions": ", ".join(f"{key} {value}" for key, value in versions().items()),
    } | recipe.flat()
    rows: list[dict[str, Any]] = []
    train_s = eval_s = 0.0
    state, reason = "completed", None
    for epoch in range(1, EPOCHS + 1):
        start = time.process_time()
        try:
            losses = trainer.run_epoch()
        except DivergedError as error:
            state, reason = "diverged", str(error)
            rows.append({"epoch": epoch - 1})
            break
        trained = time.process_time()
        train_s += trained - start
        if epoch not in MEASURED:
            continue
        before = net.noise.state()
        net.noise.seed(derive(SEED, "scoring", epoch))
        row = evaluate(
            net,
            images,
            labels,
            protocol=quick,
            epsilon=dataset.epsilon,
            epsilon_l2=dataset.epsilon_l2,
            draws=recipe.draws,
            seed=SEED,
        )
        net.noise.load_state(before)
        eval_s += time.process_time() - trained
        rows.append(row | {"epoch": epoch, "train_loss": losses["loss"], "train_s": train_s, "eval_s": eval_s})
    results.write_trial(folder, name, [row | shared | {"state": state, "reason": reason} for row in rows])


def pack(folder: Path, file: Path, dataset: Dataset) -> None:
    """Time each structure, and write all rows into one file."""
    table = results.read(folder)
    rows = table.to_pylist()
    structures = {recipe.describe(): recipe for recipe in (Recipe.from_json(row["recipe"]) for row in rows)}
    deployed = {
        words: prepare(deploy(network(recipe, dataset).eval(), recipe.draws), dataset.shape, CPU)
        for words, recipe in structures.items()
    }
    timed: dict[str, dict[str, Any]] = {}
    for _ in range(ROUNDS):  # in turn, so that what disturbs one of them is over when it comes again
        for words, net in deployed.items():
            found = measure(net, dataset.shape, CPU).row()
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
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset = data.load("digits")
    if given.pack:
        pack(given.out, given.pack, dataset)
        return
    part, parts = map(int, given.part.split("/"))
    todo = list(enumerate(recipes(dataset.epsilon)))
    Random(0).shuffle(todo)  # so that what is there at any time is a sample of the whole
    mine = [item for item in todo[part::parts] if not (given.out / f"{item[0]:04d}.parquet").exists()]
    start = time.monotonic()
    for done, (number, recipe) in enumerate(mine, 1):
        record(recipe, dataset, given.out, f"{number:04d}")
        left = (time.monotonic() - start) / done * (len(mine) - done)
        print(f"{done}/{len(mine)}  {number:04d} {recipe.describe()}  ~{left / 60:.0f} min left", flush=True)


if __name__ == "__main__":
    main()
