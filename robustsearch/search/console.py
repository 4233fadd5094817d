"""What a person sees while a search runs."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.console import Console

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
