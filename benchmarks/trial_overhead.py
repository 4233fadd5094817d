"""What a trial costs beside its own work: `python -m benchmarks.trial_overhead [--trials 4 16]`.

Trials of a WRN-10-1 of one epoch on a fifth of digits, whose own work (`Trial.advance`: training, evaluation, timing)
is under a second. Prints two Markdown tables:

- in one process without Ray: CPU seconds of a trial in a worker that it takes over, by what they are spent on;
- whole searches of few and of many such trials, from outside: CPU seconds of all their processes, so that what a trial
  more costs is the difference; less its own work, that is its overhead. And the time until the first trial trains.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .processes import family
from .timing import machine

SPACE = '''"""One tiny recipe, again and again."""

from robustsearch.recipe import Attack, Mix, Model, Recipe, Training


def suggest(trial, epsilon):
    return Recipe(
        model=Model(depth=10),
        mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0),
        attack=Attack(epsilon=epsilon, step=epsilon),
        training=Training(epochs=1, lr=trial.suggest_float("lr", 0.01, 0.02)),
    )
'''
TICKS = os.sysconf("SC_CLK_TCK")


def inside(trials: int, folder: Path) -> dict[str, float]:
    """CPU seconds of a trial by what they are spent on: medians over trials that one worker runs in turn."""
    from robustsearch import data
    from robustsearch.evaluation.protocols import protocol
    from robustsearch.recipe import Attack, Mix, Model, Recipe, Training
    from robustsearch.runfolder import RunFolder
    from robustsearch.search.worker import Worker
    from robustsearch.trial import Plan

    dataset = data.load("digits", fraction=0.2)
    plan = Plan((1,), protocol("quick"), dataset.epsilon, dataset.epsilon_l2)
    recipe = Recipe(
        model=Model(depth=10),
        mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0),
        attack=Attack(epsilon=dataset.epsilon, step=dataset.epsilon),
        training=Training(epochs=1, lr=0.01),
    )
    worker = Worker.__new__(Worker)
    RunFolder(folder).write_info({})
    shared: dict[str, Any] = {"place": str(folder), "dataset": dataset, "plan": plan, "threads": 1}
    rows: dict[str, list[float]] = {}

    def timed(name: str, run: Any, *arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        result = run(*arguments, **named)
        rows.setdefault(name, []).append(time.process_time() - start)
        return result

    for index in range(trials + 1):
        config = {"trial": f"{index:04d}", "recipe": recipe.to_json(), "seed": index}
        if index:
            timed("taking over: network, checkpoint, board", worker.reset_config, config)
        else:
            timed("the first in a process", worker.setup, config, **shared)
        trial = worker._trial
        assert trial is not None
        advance, save, portrait = trial.advance, trial.save, trial.portrait
        for name, label, method in (
            ("advance", "own work", advance),
            ("save", "checkpoint and network", save),
            ("portrait", "portrait", portrait),
        ):
            setattr(trial, name, lambda *given, label=label, method=method: timed(label, method, *given))
        timed("step", worker.step)
    worker.cleanup()
    medians = {name: float(np.median(values[1:] or values)) for name, values in rows.items()}
    named = ("own work", "checkpoint and network", "portrait")
    medians["board, rows"] = medians.pop("step") - sum(medians[name] for name in named)
    first = medians.pop("the first in a process")
    return medians | {"overhead of a trial": sum(medians.values()) - medians["own work"], "setup of the first": first}


@dataclass
class Watched:
    """What a search's processes have used, seen from outside."""

    cpu: dict[int, float] = field(default_factory=dict)
    """CPU seconds by process, its ended children included."""
    began: float = field(default_factory=time.time)

    def look(self, root: int) -> None:
        """Note all descendants of `root`, and itself."""
        self.cpu |= {pid: process.ticks / TICKS for pid, process in family(root).items()}


def search(folder: Path, trials: int) -> tuple[Watched, float]:
    """A search of so many trials, and seconds until its first trial was asked for."""
    from robustsearch import events

    space = folder / "tiny.py"
    space.write_text(SPACE)
    name = f"n{trials}-{time.time_ns()}"
    command = [
        *(sys.executable, "-m", "robustsearch.run", "--space", str(space), "--storage", str(folder), "--name", name),
        *("--trials", str(trials), "--epochs", "1", "--repeats", "0", "--final-images", "0", "--sampler", "random"),
        *("--fraction", "0.2"),
    ]
    watched = Watched()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            watched.look(process.pid)
            time.sleep(0.3)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    log, _ = events.read(folder / name / "events.jsonl")
    asked = next(event for event in log if event.kind == "ask")
    return watched, datetime.fromisoformat(asked.time).timestamp() - watched.began


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", nargs=2, type=int, default=[4, 16], metavar=("FEW", "MANY"))
    parser.add_argument("--inside", type=int, default=8, metavar="N", help="trials in one process, without Ray")
    given = parser.parse_args()
    print(f"{machine(1)}\n\n| one trial in a worker, without Ray | CPU s |\n|---|---|")
    with tempfile.TemporaryDirectory() as root:
        medians = inside(given.inside, Path(root) / "inside")
        for name, seconds in medians.items():
            print(f"| {name} | {seconds:.3f} |", flush=True)
        print("\n| whole search | trials | CPU s of all processes | s to the first trial |\n|---|---|---|---|")
        totals = []
        for trials in given.trials:
            watched, waited = search(Path(root), trials)
            totals.append(sum(watched.cpu.values()))
            print(f"| {trials} and the baseline | {totals[-1]:.1f} | {waited:.1f} |", flush=True)
        each = (totals[1] - totals[0]) / (given.trials[1] - given.trials[0])
        own = medians["own work"]
        print(f"\nA trial more: {each:.2f} CPU s, of which own work {own:.2f}; {each - own:.2f} beside.")


if __name__ == "__main__":
    main()
