"""The folder of a run: where everything lies, and that only one driver works in it.

RUN/
├── run.json        what was asked: space, dataset, settings, versions, hardware, command
├── events.jsonl    the append-only log of the search
├── results/        one Parquet file a trial; together one table
├── trials/ID/      checkpoint and TensorBoard log of each trial
├── portraits/      arrays behind the figures of a trained network
├── study/          the Optuna study (journal storage), as optuna-dashboard reads it
└── figures/        what `analysis` draws
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from .errors import RunError


def network_file(checkpoint: Path, epoch: int) -> Path:
    """Where the network at a rung lies, beside the checkpoint of its trial."""
    return checkpoint.with_name(f"network-{epoch:04d}.pt")


class RunFolder:
    """Paths of a run; `create` or `open` it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info_file = root / "run.json"
        self.events_file = root / "events.jsonl"
        self.results = root / "results"
        self.trials = root / "trials"
        self.evaluations = root / "evaluations"
        self.study_file = root / "study" / "journal.log"
        self.figures = root / "figures"

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.root.name

    def checkpoint(self, trial: str) -> Path:
        """Where a trial's checkpoint lies."""
        return self.trials / trial / "checkpoint.pt"

    def network(self, trial: str, epoch: int) -> Path:
        """Where a trial's network at a rung lies."""
        return network_file(self.checkpoint(trial), epoch)

    def portrait(self, trial: str, epoch: int) -> Path:
        """Where the arrays behind the figures of a trial's network lie."""
        return self.root / "portraits" / f"{trial}-{epoch:04d}.npz"

    def info(self) -> dict[str, Any]:
        """What `run.json` says.

        Raises:
            RunError: there is none, or it is damaged.
        """
        try:
            info = json.loads(self.info_file.read_text())
        except FileNotFoundError:
            raise RunError(f"a run is a folder with a run.json, but {self.root} has none") from None
        except ValueError as error:
            raise RunError(f"run.json must be JSON, but {self.info_file} is not: {error}") from error
        if not isinstance(info, dict):
            raise RunError(f"run.json must hold an object, but {self.info_file} does not")
        return info

    def check_place(self) -> None:
        """Find out early what would keep a new run from its folder.

        Raises:
            RunError: the folder holds a run already, or cannot be made.
        """
        if self.info_file.exists():
            raise RunError(
                f"a new run needs a folder of its own, but {self.root} holds a run: --resume it or take another --name"
            )
        nearest = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise RunError(
                f"the run folder must be writable, but {self.root} cannot be made: {nearest} is no writable folder"
            )

    def write_info(self, info: dict[str, Any]) -> None:
        """Write `run.json` in one atomic step.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            part = self.root / ".run.json.part"
            part.write_text(json.dumps(info, indent=2) + "\n")
            os.replace(part, self.info_file)
            for folder in (self.results, self.trials, self.study_file.parent, self.figures):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"the run folder must be writable, but {self.root} is not: {error.strerror}") from error

    def lock(self) -> int:
        """Take the folder for this driver; the lock ends with the process.

        Raises:
            RunError: another driver works in it.
        """
        handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise RunError(f"only one driver may work in a run folder, but another one works in {self.root}") from None
        return handle
