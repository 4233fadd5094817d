"""What a person sees while a search runs, and at its end."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from ..pareto import results_front
from ..recipe import Recipe
from .ledger import Entry, Ledger


class Progress:
    """Prints a line for each rung and each end of a trial: how far the search is, and how long it may still take."""

    def __init__(self, console: Console, ledger: Ledger, trials: int, epochs: int) -> None:
        self._console, self._ledger, self._trials, self._epochs = console, ledger, trials, epochs
        self._start = time.monotonic()
        self._printed = {name: len(entry.rows) for name, entry in ledger.entries.items()}
        self._before = self._work()[0]

    def changed(self, entry: Entry) -> None:
        """Called after each change of an entry."""
        rungs = [row for row in entry.rows if row.get("robust") is not None]
        if entry.state == "running" and len(rungs) == self._printed.get(entry.name, 0):
            return
        self._printed[entry.name] = len(rungs)
        ended = sum(other.state != "running" for other in self._ledger.entries.values())
        line = f"{_clock(time.monotonic() - self._start)}  {ended:>3}/{self._trials} done  {self._left():<14}"
        line += f"  {entry.name:<8} epoch {entry.trained:>3}/{self._epochs}"
        if rungs:
            row = rungs[-1]
            line += f"  robust {percent(row['robust'])} ({percent(row['robust_low'])} to {percent(row['robust_high'])})"
            line += f"  {row['latency_p50']:.2f} ms"
        if entry.state != "running":
            line += f"  {entry.state}"
        if entry.state in ("diverged", "crashed"):
            line += f": {entry.reason}"
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _work(self) -> tuple[float, float]:
        """Epochs trained so far, and expected in all: a trial to come takes as many as those that ended on average."""
        entries = list(self._ledger.entries.values())
        trained = [entry.trained for entry in entries]
        ended = [entry.trained for entry in entries if entry.state != "running" and entry.trained]
        typical = sum(ended) / len(ended) if len(ended) > 1 else self._epochs
        running = sum(max(typical, entry.trained + 1) for entry in entries if entry.state == "running")
        return sum(trained), sum(ended) + running + typical * (self._trials - len(entries))

    def _left(self) -> str:
        done, total = self._work()
        speed = (done - self._before) / max(time.monotonic() - self._start, 1e-9)
        return f"~{_clock(max(0.0, total - done) / speed)} left" if speed > 0 else ""


def percent(share: float | None) -> str:
    """A share of 1 as a percentage."""
    return "-" if share is None else f"{100 * share:.1f}%"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def front_table(table: pa.Table) -> Table:
    """The front of a run, fastest first, and the baseline below it."""
    shown = Table(title="Front: robust accuracy against latency", title_justify="left", title_style="bold")
    for name in (
        "trial",
        "epoch",
        "p50 ms",
        "p95 ms",
        "robust",
        "95% interval",
        "natural",
        "FGSM",
        "PGD",
        "CW l2",
        "defence",
    ):
        shown.add_column(name, justify="left" if name in ("trial", "defence") else "right")
    baseline = table.filter(pa.compute.equal(table["role"], "baseline")).sort_by([("epoch", "descending")]).slice(0, 1)
    for part in (results_front(table), baseline):
        for row in part.to_pylist():
            if row["robust"] is None:
                continue
            shown.add_row(
                row["trial"],
                str(row["epoch"]),
                f"{row['latency_p50']:.2f}",
                f"{row['latency_p95']:.2f}",
                percent(row["robust"]),
                f"{percent(row['robust_low'])} to {percent(row['robust_high'])}",
                *(percent(row[name]) for name in ("natural", "fgsm", "pgd", "cw")),
                describe(Recipe.from_json(row["recipe"])),
            )
        shown.add_section()
    return shown


def describe(recipe: Recipe) -> str:
    """A recipe in a few words."""
    words = [f"WRN-{recipe.model.depth}-{recipe.model.widen_factor}"]
    if recipe.lwta:
        noise = "" if recipe.lwta.gate_noise is None else f" {recipe.lwta.gate_noise:.2g}"
        words.append(f"LWTA-{recipe.lwta.units} {recipe.lwta.gate}{noise}")
        if recipe.lwta.ibp:
            words.append("IBP")
    else:
        words.append("ReLU")
    if recipe.pni:
        words.append(f"PNI {recipe.pni.where} {recipe.pni.granularity}")
    if recipe.smoothing:
        words.append(f"smoothing {recipe.smoothing.sigma:.2g}")
    if recipe.draws > 1:
        words.append(f"K={recipe.draws}")
    return ", ".join(words)


def next_steps(root: Path) -> tuple[str, str]:
    """Commands that show more of a run."""
    return (
        f"Front as figures:  python -m analysis.pareto {root}",
        f"TensorBoard:       tensorboard --logdir {root / 'trials'}",
    )
