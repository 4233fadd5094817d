"""What the search has attained so far, against the epochs spent: hypervolume and front, for console and TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..devices import is_comparable
from ..pareto import above_floor, is_front, is_measured, normalised_hypervolume
from .ledger import Entry, Ledger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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
        self._device: str | None = None  # of the first row that was timed
        self._seen: dict[str, int] = {}
        for entry in ledger.entries.values():
            self.update(entry)

    def update(self, entry: Entry) -> bool:
        """Take in the new rungs of a trial; whether there were any."""
        seen = self._seen.get(entry.name, 0)
        rows = [row for row in entry.rows[seen:] if is_measured(row)]
        if rows and self._device is None:
            self._device = rows[0].get("device")
        rows = [row for row in rows if is_comparable(row, self._device)]
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
    def front(self) -> NDArray[np.float64]:
        """Latency p50 in ms and robust accuracy, `[n, 2]`, of the points that none dominates; fastest first."""
        points = np.unique(self._points, axis=0)
        return np.column_stack([points[:, 1], -points[:, 0]])[::-1]

    @property
    def epochs(self) -> int:
        """Epochs trained so far."""
        return self._ledger.ended_epochs + sum(entry.trained for entry in self._ledger.running.values())


PICTURE_EVERY = 1.1
"""A front that has changed is drawn anew when the epochs have grown by this factor: a log of 10 million has 170."""


class SearchBoard:
    """TensorBoard of the search as a whole, at the step of its epochs: `search/` hypervolume, ended, and front."""

    def __init__(self, folder: Path, attained: Attained) -> None:
        """Log to a folder; on resume, what came after the epochs known now is replaced."""
        from torch.utils.tensorboard import SummaryWriter

        self._attained, self._folder = attained, str(folder)
        self._drawn, self._next = np.empty((0, 2)), 0.0
        self._writer: SummaryWriter | None = SummaryWriter(self._folder, purge_step=attained.epochs + 1, flush_secs=10)

    def write(self, ended: int) -> None:
        """The state of the search now; what a full disk keeps out is left out."""
        step = self._attained.epochs
        with self._lenient() as writer:
            if self._attained.hypervolume is not None:
                writer.add_scalar("search/hypervolume", self._attained.hypervolume, step)
                writer.add_scalar("search/ended", ended, step)
            if step >= self._next:
                self._draw(writer, step)

    def close(self) -> None:
        """Draw the last front, flush and close."""
        with self._lenient() as writer:
            self._draw(writer, self._attained.epochs)
            writer.close()

    @contextmanager
    def _lenient(self) -> Iterator[SummaryWriter]:
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = self._writer or SummaryWriter(self._folder, flush_secs=10)
            yield self._writer
        except OSError:
            self._writer = None  # it says so for ever

    def _draw(self, writer: SummaryWriter, step: int) -> None:
        front = self._attained.front
        if len(front) and not np.array_equal(front, self._drawn):
            writer.add_image("search/front", front_picture(front), step, dataformats="HWC")
            self._drawn, self._next = front, PICTURE_EVERY * step


def front_picture(front: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A picture `[H, W, 3]` of the points of a front `[n, 2]` (latency in ms, robust accuracy), ascending."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from robustsearch.analysis import style  # type: ignore[import-not-found]
    from robustsearch.analysis.front import corners  # type: ignore[import-not-found]
    from robustsearch.analysis.front_figure import scale  # type: ignore[import-not-found]

    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(4.8, 3.2), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        scale(axes, front[:, 0].tolist(), front[:, 1].tolist())
        line = corners([(time, robust) for time, robust in front], axes.get_xlim()[1])
        axes.plot(line[:, 0], 100 * line[:, 1], color=style.FRONT, linewidth=1.2)
        axes.plot(front[:, 0], 100 * front[:, 1], "o", color=style.FRONT, markersize=5)
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
