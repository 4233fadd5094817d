"""What a further worker of a run takes of memory, over torch's own: `python -m benchmarks.memory [--data-mb 1 40]`.

Workers of runs with little and with much data beside workers with nothing of this project (`benchmarks.bare`), two of a
kind at a time, one kind after the other on one machine. All train WRN-10-1 with ReLU on clean images of CIFAR's shape,
in the same batches, with the same settings of the allocator, on one thread. Those of a run also attack, time and save
what they have trained, and take over trial after trial; it is a run of a design, as a search has a larger baseline.

Prints a Markdown table. Unique memory (USS, private pages) is what the machine would have more of without that worker;
PSS adds its share of what several processes have. Both are medians over the second half of a worker's life, in which
everything has been imported; a cell is the median over workers, with the least and the most.

With `--parts`, what each part of a worker adds in one process without Ray: medians over as many processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np

from robustsearch.search.placement import WORKER_ENVIRONMENT

from .bare import KINDS
from .processes import family
from .timing import machine

ENVIRONMENT = WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
DEPTH, BATCH = 10, 128
SPACE = f'''"""One small recipe."""

from robustsearch.recipe import Attack, Mix, Model, Recipe, Training


def design(epsilon):
    return {{
        "plain": Recipe(
            model=Model(depth={DEPTH}),
            mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0),
            attack=Attack(epsilon=epsilon, step=epsilon),
            training=Training(batch_size={BATCH}, lr=0.01),
        )
    }}
'''
MARKS = ("ray::Bare", "ray::ResourceTrainable")
"""What workers call themselves, with a trial or something else to do."""
MEMORY = {"USS": ("Private_Clean:", "Private_Dirty:"), "PSS": ("Pss:",)}
"""Which lines of the kernel's are summed."""
PARTS = """
import json, sys, tempfile
from pathlib import Path

def note(part):
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
    found.append((part, sum(int(line[1]) for line in lines if line[0].startswith("Private_")) / 1024))

found = []
note("Python")
import numpy, ray
note("Ray")
import torch
note("torch")
from ray import tune
note("Ray Tune")
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
note("an optimiser of torch, which imports its compiler")
from robustsearch import data
from robustsearch.trial import Plan, Trial
note("a trial's code")
from robustsearch.search.worker import Worker
note("TensorBoard and the worker")
from robustsearch.evaluation.protocols import protocol
from robustsearch.recipe import Recipe
from robustsearch.runfolder import RunFolder
with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    dataset = data.load(sys.argv[1])
    plan = Plan((2,), protocol("quick"), dataset.epsilon, dataset.epsilon_l2)
    fields = json.loads(sys.argv[2])
    RunFolder(folder).write_info({})
    note("data")
    worker = Worker.__new__(Worker)
    for index in range(2):
        config = {"trial": f"{index:04d}", "recipe": Recipe.of(fields).to_json(), "seed": index}
        if index:
            worker.reset_config(config)
            note("taking another over")
        else:
            worker.setup(config, place=str(folder), dataset=dataset, plan=plan, threads=1)
            note("network and trainer")
        worker.step()
        note("another: training" if index else "training")
        if not index:
            import onnx, onnxruntime
            note("onnx and onnxruntime")
        worker.step()
        note("another: evaluation, timing, pictures" if index else "evaluation, timing, pictures")
    worker.cleanup()
print(json.dumps([(part, size - before) for (part, size), (_, before) in zip(found[1:], found)]))
"""


def made_up(path: Path, megabytes: float) -> None:
    """A dataset of CIFAR's shape with about so many MB of training images, in full batches of two easy classes."""
    batches = max(round(megabytes * 1e6 / 3072 / BATCH), 3)
    count = batches * BATCH * 5 // 4  # a fifth is held out
    labels = np.arange(count) % 2
    images = np.repeat(labels.astype(np.uint8) * 200, 3072).reshape(count, 32, 32, 3)
    np.savez(path, x_train=images, y_train=labels, x_test=images[:100], y_test=labels[:100])


def memory(pid: int) -> dict[str, float]:
    """Each of `MEMORY` of a process, MB.

    Raises:
        OSError: it is not there any more.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rows = [line.split() for line in text.splitlines()[1:]]
    return {name: sum(int(row[1]) for row in rows if row[0] in of) / 1024 for name, of in MEMORY.items()}


def watch(*command: str) -> list[dict[str, float]]:
    """Median over the second half of its life of each worker that a command starts, and its largest USS, MB."""
    samples: dict[int, list[dict[str, float]]] = defaultdict(list)
    python = [sys.executable, "-m", *command]
    with subprocess.Popen(python, stdout=subprocess.DEVNULL, env=os.environ | ENVIRONMENT) as process:
        while process.poll() is None:
            for pid, one in family(process.pid).items():
                if one.command.startswith(MARKS):
                    with suppress(OSError):
                        samples[pid].append(memory(pid))
            time.sleep(0.5)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, python)
    found = []
    for seen in samples.values():
        late = seen[len(seen) // 2 :]
        medians = {name: float(np.median([sample[name] for sample in late])) for name in MEMORY}
        found.append(medians | {"most": max(sample["USS"] for sample in seen)})
    return found


def run(folder: Path, megabytes: float, steps: int, seeds: int) -> list[dict[str, float]]:
    """The workers of a run of so many trials of about so many steps each, on so many MB of training images."""
    file, space = folder / f"made-up-{megabytes:g}.npz", folder / "small.py"
    made_up(file, megabytes)
    space.write_text(SPACE)
    epochs = max(1, round(steps * BATCH * 3072 / (megabytes * 1e6)))
    return watch(
        *("robustsearch.run", "--space", str(space), "--storage", str(folder), "--name", f"run-{time.time_ns()}"),
        *("--seeds", str(seeds), "--epochs", str(epochs), "--protocol", "quick", "--final-images", "0"),
        *("--dataset", str(file), "--concurrency", "2"),
    )


def parts(processes: int) -> None:
    """Print what each part adds."""
    rows: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as root:
        file = Path(root) / "made-up.npz"
        made_up(file, 1)
        fields = {
            "model": {"depth": DEPTH},
            "mix": {"clean": 1, "noise": 0, "fgsm": 0, "pgd": 0, "cw": 0},
            "attack": {"epsilon": 8 / 255, "step": 8 / 255},
            "training": {"epochs": 2, "batch_size": BATCH, "lr": 0.01},
        }
        for _ in range(processes):
            command = [sys.executable, "-c", PARTS, str(file), json.dumps(fields)]
            done = subprocess.run(command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
            for part, more in json.loads(done.stdout):
                rows[part].append(more)
    print("| part | MB more |\n|---|---|")
    for part, sizes in rows.items():
        print(f"| {part} | {cell(sizes)} |")


def cell(values: list[float]) -> str:
    """Median, least and most."""
    return f"{np.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-mb", nargs="*", type=float, default=[1, 40], metavar="MB", help="training images")
    parser.add_argument("--seconds", type=float, default=60, help="how long workers with nothing of ours train")
    parser.add_argument("--steps", type=int, default=100, help="steps of a trial, about")
    parser.add_argument("--seeds", type=int, default=6, help="trials of a run")
    parser.add_argument("--rounds", type=int, default=2, help="how often all of it is run")
    parser.add_argument("--parts", type=int, metavar="N", help="instead: what each part adds, in N processes")
    given = parser.parse_args()
    print(machine(1), end="\n\n", flush=True)
    if given.parts:
        parts(given.parts)
        return
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as root:
        for _ in range(given.rounds):
            for kind, name in KINDS.items():
                options = ("--seconds", str(given.seconds), "--depth", str(DEPTH), "--batch", str(BATCH))
                rows[name] += watch("benchmarks.bare", kind, *options)
            for megabytes in given.data_mb:
                rows[f"a run's, {megabytes:g} MB of images"] += run(Path(root), megabytes, given.steps, given.seeds)
    print("| workers | n | USS, MB | PSS, MB | largest USS, MB |\n|---|---|---|---|---|")
    for name, workers in rows.items():
        cells = (cell([worker[figure] for worker in workers]) for figure in (*MEMORY, "most"))
        print(f"| {name} | {len(workers)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
