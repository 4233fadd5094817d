"""TensorBoard: the scalars of each trial, and its recipe as HParams next to both objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ..recipe import Recipe

METRICS = ("robust", "latency_p50", "natural", "fgsm", "pgd", "cw")
OTHER = ("latency_p95", "throughput", "blocks_kept", "macs", "parameters")


class Board:
    """Writes one trial's log; on resume, what came after `epoch` is replaced."""

    def __init__(self, folder: Path, recipe: Recipe, epoch: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=epoch + 1, flush_secs=10)
        if epoch == 0:
            settings = {name: value for name, value in recipe.flat().items() if value is not None}
            for summary in hparams(settings, {f"objective/{name}": 0.0 for name in METRICS}):  # type: ignore[no-untyped-call]
                self._writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]

    def losses(self, epoch: int, losses: dict[str, float]) -> None:
        """The terms of the training objective in an epoch."""
        for name, value in losses.items():
            self._writer.add_scalar(f"train/{name}", value, epoch)

    def row(self, row: dict[str, Any]) -> None:
        """What was measured at a rung."""
        for group, names in (("objective", METRICS), ("measured", OTHER)):
            for name in names:
                if row[name] is not None:
                    self._writer.add_scalar(f"{group}/{name}", row[name], row["epoch"])

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()
