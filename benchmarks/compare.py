"""Two commits on one machine, by ratio: `python -m benchmarks.compare [--base main] [--change HEAD]`.

Both are checked out into git worktrees of their own, and processes of the two take turns, so that what else the machine
does falls on both. Prints a Markdown table: CPU time of a training step, what torch allocates in it and what it adds to
the process at its peak, for recipes of the project's kinds, and CPU and wall time of `--help`. Medians with quartiles
over rounds; ratios of each round with 95% intervals. With `--fail-above R` the exit code is 1 where the whole interval
of some ratio is above R.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from robustsearch.search.placement import WORKER_ENVIRONMENT

from .timing import interval, machine, ratio, spread

ENVIRONMENT = WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
RECIPES = {
    "ReLU, clean": {"mix.pgd": 0, "mix.clean": 1},
    "ReLU, PGD-3": {},
    "LWTA-2, clean": {"lwta": {}, "mix.pgd": 0, "mix.clean": 1},
    "LWTA-2, PGD-3": {"lwta": {}},
    "LWTA-4 + IBP, PGD-3": {"lwta": {"units": 4, "ibp": {}}},
    "PNI, PGD-3": {"pni": {}},
}
PROBE = """
import json, resource, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from torch.profiler import profile
import robustsearch
from robustsearch import data
from robustsearch.models.build import build_network
from robustsearch.recipe import Recipe
from robustsearch.training.loop import Trainer

assert Path(robustsearch.__file__).is_relative_to(Path.cwd()), robustsearch.__file__
torch.set_num_threads(1)
depth, steps, given = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
whole = data.load("digits")
dataset = replace(whole, train=whole.train.take(range(128)))
fields = {
    "model": {"depth": depth},
    "mix": {"clean": 0, "noise": 0, "fgsm": 0, "pgd": 1, "cw": 0},
    "attack": {"epsilon": 0.1, "step": 0.05, "steps": 3},
    "training": {"epochs": 10000, "lr": 0.01, "schedule": "constant"},
}
for name, value in given.items():
    section, _, field = name.partition(".")
    if field:
        fields[section][field] = value
    else:
        fields[section] = value
recipe = Recipe.of(fields)
network = build_network(
    recipe, shape=dataset.shape, classes=dataset.classes, mean=dataset.mean, std=dataset.std, seed=0
)
trainer = Trainer(network, recipe, dataset, 0, torch.device("cpu"))
before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
for _ in range(steps + 1):
    start = time.process_time()
    trainer.run_epoch()
    times.append(time.process_time() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with profile(profile_memory=True) as profiler:
    trainer.run_epoch()
changes = [event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
taken = [size for size in changes if size > 0]
figures = sorted(times[1:])[steps // 2], len(taken), sum(taken) / 2**20, (peak - before) / 1024
print(json.dumps(figures))
"""
FIGURES = {"CPU s": 3, "allocations": 0, "MB allocated": 0, "MB at the peak": 0}
"""What `PROBE` prints of a step, and decimals."""


def worktree(repository: Path, commit: str, folder: Path) -> Path:
    """A checkout of a commit at `folder`."""
    subprocess.run(
        ["git", "-C", str(repository), "worktree", "add", "--quiet", "--detach", str(folder), commit], check=True
    )
    return folder


def step(place: Path, fields: dict[str, object], depth: int, steps: int) -> dict[str, float]:
    """The `FIGURES` of a step, in a new process."""
    command = [sys.executable, "-c", PROBE, str(depth), str(steps), json.dumps(fields)]
    done = subprocess.run(command, cwd=place, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True)
    return dict(zip(FIGURES, json.loads(done.stdout), strict=True))


def help_page(place: Path) -> dict[str, float]:
    """CPU and wall seconds of the command's `--help`."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "robustsearch.run", "--help"], cwd=place, stdout=subprocess.DEVNULL, check=True
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"CPU s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "wall s": wall}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="main", metavar="COMMIT")
    parser.add_argument("--change", default="HEAD", metavar="COMMIT")
    parser.add_argument("--depth", type=int, default=34)
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="steps of a process, whose median counts")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="NAME")
    parser.add_argument("--fail-above", type=float, metavar="R")
    given = parser.parse_args()
    repository = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as root:
        places = [
            worktree(repository, commit, Path(root) / name)
            for name, commit in (("base", given.base), ("change", given.change))
        ]
        try:
            measured: dict[str, list[list[float]]] = defaultdict(lambda: [[], []])
            for _ in range(given.rounds):
                for side, place in enumerate(places):
                    for name, value in help_page(place).items():
                        measured[f"`--help`, {name}"][side].append(value)
                for recipe in given.recipes:
                    for side, place in enumerate(places):
                        for name, value in step(place, RECIPES[recipe], given.depth, given.steps).items():
                            measured[f"step, {recipe}, {name}"][side].append(value)
        finally:
            for place in places:
                subprocess.run(["git", "-C", str(repository), "worktree", "remove", "--force", str(place)], check=True)
    print(f"{machine(1)}; WRN-{given.depth}-1 on digits, batch 128, {given.rounds} rounds\n")
    print(f"| | {given.base} | {given.change} | ratio [95%] |\n|---|---|---|---|")
    worse = []
    for name, (base, change) in measured.items():
        one, other = np.array(base), np.array(change)
        digits = FIGURES.get(name.rpartition(", ")[2], 3)
        print(f"| {name} | {spread(one, digits)} | {spread(other, digits)} | {ratio(other, one)} |")
        if given.fail_above is not None and interval(other / one)[0] > given.fail_above:
            worse.append(name)
    if worse:
        print(f"\nAbove {given.fail_above:g} times {given.base}: {', '.join(worse)}.")
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
