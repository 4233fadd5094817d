"""What the search has attained so far: normalised hypervolume against the epochs spent, for console and TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..pareto import OBJECTIVES, above_floor, is_front, normalised_hypervolume
from .ledger import Entry, Ledger


class Attained:
    """The front of the sampler's trials as rungs come in; it holds what may still be on it, not all that was measured.

    Attributes:
        hypervolume: `normalised_hypervolume` over the plain network's latency; None until that one is measured.
        epochs: trained so far by all trials together.
    """

    def __init__(self, ledger: Ledger, base: float | None = None) -> None:
        """Of a ledger; `base` is the plain network's p50 in ms, where it is not one of its trials."""
        self._ledger = ledger
        self._points = np.empty((0, 2))
        self._base = base
        self._seen: dict[str, int] = {}
        for entry in ledger.entries.values():
            self.update(entry)

    def update(self, entry: Entry) -> bool:
        """Take in the new rungs of a trial; whether there were any."""
        seen = self._seen.get(entry.name, 0)
        rows = [row for row in entry.rows[seen:] if all(row.get(name) is not None for name in OBJECTIVES)]
        self._seen[entry.name] = len(entry.rows)
        if not rows or entry.role == "repeat":
            return False
        if entry.role == "baseline":
            self._base = self._base or rows[0]["latency_p50"]
            return True
        new = np.array([[-row["robust"], row["latency_p50"]] for row in rows])
        points = np.concatenate([self._points, new])
        # What is below the floor stays below it, and dominates nothing above it.
        points = points[above_floor(points)]
        self._points = points[is_front(points)]
        return True

    @property
    def hypervolume(self) -> float | None:
        """Normalised hypervolume; None until the plain network is measured."""
        return None if self._base is None else normalised_hypervolume(self._points, self._base)

    @property
    def epochs(self) -> int:
        """Epochs trained so far."""
        return self._ledger.ended_epochs + sum(entry.trained for entry in self._ledger.running.values())


class SearchBoard:
    """TensorBoard scalars of the search as a whole: `search/hypervolume`, and the number of trials that have ended."""

    def __init__(self, folder: Path, attained: Attained) -> None:
        """Log to a folder; on resume, what came after the epochs known now is replaced."""
        from torch.utils.tensorboard import SummaryWriter

        self._attained = attained
        self._writer = SummaryWriter(str(folder), purge_step=attained.epochs + 1, flush_secs=10)

    def write(self, ended: int) -> None:
        """The state of the search now, at the step of its epochs."""
        if self._attained.hypervolume is not None:
            step = self._attained.epochs
            self._writer.add_scalar("search/hypervolume", self._attained.hypervolume, step)
            self._writer.add_scalar("search/ended", ended, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()
