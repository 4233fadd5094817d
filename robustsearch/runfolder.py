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
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import events
from .errors import RunError
from .names import checked_name
from .patience import TROUBLES
from .storage import Lease, Store, is_url

ROOM = 100e6
"""Bytes that must be free before a run starts: some trials' worth (18 of WRN-34 took 328 MB). A disk that fills up
later is waited for (`patience`)."""


def network_file(checkpoint: Path, epoch: int) -> Path:
    """Where the network at a rung lies, beside the checkpoint of its trial."""
    return checkpoint.with_name(f"network-{epoch:04d}.pt")


class RunFolder:
    """Paths of a run.

    Attributes:
        store: the object store that the folder is the working copy of, if it is one.
    """

    def __init__(self, root: Path, store: Store | None = None) -> None:
        self.root, self.store = root, store
        self.info_file = root / "run.json"
        self.events_file = root / "events.jsonl"
        self.results = root / "results"
        self.trials = root / "trials"
        self.evaluations = root / "evaluations"
        self.study_file = root / "study" / "journal.log"
        self.figures = root / "figures"

    @classmethod
    def at(cls, place: str | Path) -> RunFolder:
        """The run in a folder, or at a URL of an object store: its working copy on this machine, as it is now.

        Raises:
            RunError: the URL is that of no run, or the store cannot be reached.
        """
        if not is_url(place):
            return cls(Path(place))
        store = Store(place)
        return cls(store.root, store)

    @classmethod
    def fetched(cls, place: str | Path) -> RunFolder:
        """The run in a folder, or at a URL, to be read: its working copy is brought to what the store has.

        Raises:
            RunError: as for `at`.
        """
        folder = cls.at(place)
        folder.refresh()
        return folder

    @property
    def resume_command(self) -> str:
        """What goes on with it at the command line."""
        place = self.store.parent if self.store else str(self.root.parent)
        storage = "" if place == "runs" else f" --storage {shlex.quote(place)}"
        return f"python -m robustsearch.run --resume --name {self.name}{storage}"

    def farewell(self, trouble: object) -> str:
        """What is said where its search must end."""
        return f"error: {trouble}\nNothing that was written is lost; to go on: {self.resume_command}"

    def refresh(self) -> None:
        """Bring a working copy to what the store has; one in which a driver of this machine works is left alone.

        Raises:
            RunError: the store cannot be reached.
        """
        if self.store and not self.is_driven():
            self.store.reach()
            self.store.fetch()

    def is_driven(self) -> bool:
        """Whether a driver of this machine works in the folder now."""
        if not self.root.exists():
            return False
        try:
            with self._alone():
                return False
        except RunError:
            return True

    @property
    def place(self) -> str:
        """What `at` needs: the folder as it was given, or the URL of a run in a store."""
        return self.store.url if self.store else str(self.root)

    @property
    def place_anywhere(self) -> str:
        """The same for any working directory, on any machine that shares the folder."""
        return self.store.url if self.store else str(self.root.resolve())

    def public(self, path: Path) -> str:
        """Where a person reaches a file or folder of the run: in the store, where there is one."""
        if not self.store:
            return str(path)
        return f"{self.store.url.partition('?')[0]}/{path.relative_to(self.root).as_posix()}"

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.root.name

    def checkpoint(self, trial: str) -> Path:
        """Where a trial's checkpoint lies."""
        return self.trials / checked_name(trial, "a trial") / "checkpoint.pt"

    def network(self, trial: str, epoch: int) -> Path:
        """Where a trial's network at a rung lies."""
        return network_file(self.checkpoint(trial), epoch)

    def fetched_network(self, trial: str, epoch: int) -> Path:
        """The same, brought from the store where there is one: what is here may be of another run of this name."""
        path = self.network(trial, epoch)
        if self.store:
            self.store.pull([path.relative_to(self.root).as_posix()])
        return path

    def fetched_trial(self, trial: str) -> Path:
        """The folder of a trial, with the TensorBoard log that the store has, where there is one."""
        folder = self.trials / checked_name(trial, "a trial")
        if self.store:
            names = [name for name in self.store.names(f"trials/{trial}") if ".tfevents." in name]
            driven = self.is_driven()  # then what is here may still be written
            self.store.pull(name for name in names if not driven or not (self.root / name).exists())
        return folder

    def portrait(self, trial: str, epoch: int) -> Path:
        """Where the arrays behind the figures of a trial's network lie."""
        return self.root / "portraits" / f"{trial}-{epoch:04d}.npz"

    def info(self) -> dict[str, Any]:
        """What `run.json` says; where it is lost or damaged, what the event log says that it said.

        Raises:
            RunError: there is neither.
        """
        try:
            info = json.loads(self.info_file.read_text(encoding="utf-8"))
            if isinstance(info, dict):
                return info
            reason = f"{self.info_file} holds no object"
        except FileNotFoundError:
            reason = f"{self.root} has none"
        except ValueError as error:
            reason = f"{self.info_file} is damaged: {error}"
        starts = (event.data.get("info") for event in events.read(self.events_file)[0] if event.kind == "start")
        if (logged := next((info for info in starts if info), None)) is None:
            raise RunError(f"a run is a folder with a run.json, a JSON object, but {reason}")
        return dict(logged)

    def exists(self) -> bool:
        """Whether a run has begun.

        Raises:
            RunError: the store cannot be reached.
        """
        if self.store:
            self.store.reach()
            return self.store.exists()
        return self.has_begun_here()

    def has_begun_here(self) -> bool:
        """Whether a run has begun, as far as the folder on this machine knows."""
        return self.info_file.exists() or self.events_file.exists()

    def check_place(self) -> None:
        """Find out early what would keep a new run from its folder.

        Raises:
            RunError: the folder holds a run already, or cannot be made, or there is no room for it.
        """
        if self.exists():
            raise RunError(
                f"a new run needs a folder of its own, but {self.place} holds a run: --resume it or take another --name"
            )
        if self.store:
            shutil.rmtree(self.root, ignore_errors=True)  # of a run that is no longer in the store
        nearest = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise RunError(
                f"the run folder must be writable, but {self.root} cannot be made: {nearest} is no writable folder"
            )
        if (free := shutil.disk_usage(nearest).free) < ROOM:
            raise RunError(
                f"a run needs at least {ROOM / 1e6:g} MB of disk, but {nearest} has {free / 1e6:.1f} MB left: "
                "make room or take another --storage"
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Take the run for this driver; the lock ends with the process, a lease in a store soon after it.

        Raises:
            RunError: another driver works in it, or it cannot be written.
        """
        with self._alone():
            lease = Lease(self.store) if self.store else None
            try:
                yield
            finally:
                if lease:
                    lease.give_back()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """As the only driver on this machine."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            if error.errno in TROUBLES:
                raise
            raise RunError(f"the run folder must be writable, but {self.root} is not: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise RunError(f"only one driver may work in a run folder, but another one works in {self.root}") from None
        try:
            yield
        finally:
            os.close(handle)
