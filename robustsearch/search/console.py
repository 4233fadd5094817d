"""What a person sees while a search runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console

from .ledger import Entry, Ledger
from .live import Attained


class Progress:
    """Prints a line for each rung and each end of a trial: how far the search is, what it attained, what is left."""

    def __init__(
        self,
        console: Console,
        ledger: Ledger,
        attained: Attained,
        left: Callable[[], int],
        epochs: int,
        wrote: Callable[[int], object] | None = None,
    ) -> None:
        """`left()` more trials may be asked for, of `epochs` each; `wrote(ended)` is called after each line."""
        self._console, self._ledger, self._attained = console, ledger, attained
        self._to_come, self._epochs, self._wrote = left, epochs, wrote
        self._start = time.monotonic()
        self._before = attained.epochs

    def changed(self, entry: Entry) -> None:
        """Called after each change of an entry."""
        if not self._attained.update(entry) and entry.state == "running":
            return
        rungs = [row for row in entry.rows if row.get("robust") is not None]
        ended = self._ledger.ended
        line = f"{_clock(time.monotonic() - self._start)}  {ended:>3}/{self._expected()} done  {self._left():<14}"
        line += f"  {entry.name:<8} epoch {entry.trained:>3}/{self._epochs}"
        if rungs:
            row = rungs[-1]
            line += f"  robust {percent(row['robust'])} ({percent(row['robust_low'])} to {percent(row['robust_high'])})"
            line += f"  {row['latency_p50']:.2f} ms"
        if entry.state != "running":
            line += f"  {entry.state}"
        if entry.reason and entry.by != "scheduler":
            line += f": {entry.reason}"
        if entry.role != "baseline" and self._attained.hypervolume is not None:
            line += f"  attained {percent(self._attained.hypervolume)}"
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)
        if self._wrote:
            self._wrote(ended)

    def _expected(self) -> int:
        """Trials in all, as far as is known."""
        return len(self._ledger.entries) + self._to_come()

    def _work(self) -> tuple[float, float]:
        """Epochs trained so far, and expected in all: a trial to come takes as many as those that ended on average."""
        ledger = self._ledger
        typical = ledger.ended_epochs / ledger.ended if ledger.ended > 1 else self._epochs
        running = sum(max(typical, entry.trained + 1) for entry in ledger.running.values())
        total = ledger.ended_epochs + running + typical * (self._expected() - len(ledger.entries))
        return self._attained.epochs, total

    def _left(self) -> str:
        done, total = self._work()
        speed = (done - self._before) / max(time.monotonic() - self._start, 1e-9)
        return f"~{_clock(max(0.0, total - done) / speed)} left" if speed > 0 else ""


def percent(share: float | None) -> str:
    """A share of 1 as a percentage."""
    return "-" if share is None else f"{100 * share:.1f}%"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
