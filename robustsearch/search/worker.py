"""The Tune trainable: one actor that runs trial after trial, each from its last checkpoint in the run folder."""

from __future__ import annotations

import json
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from ray import tune

from .. import checkpoint
from ..data import Dataset
from ..errors import DivergedError, StorageError
from ..patience import patiently
from ..recipe import Recipe
from ..runfolder import RunFolder
from ..trial import Plan, Trial
from .board import METRICS, OTHER, Board

DEATHS = 3
"""How often a worker may die in one epoch of a trial before it is the trial's fault."""
ATTEMPTS = "attempts.json"
"""Beside the checkpoint: driver and epoch of the last worker, and how many of these there were."""


class Worker(tune.Trainable):  # type: ignore[misc]
    """A step is an epoch; a result carries every rung measured so far, so that none is lost on the way.

    `ended` is the state that a trial came to by itself, with its reason: stopped by its own watch, or failed. An
    exception of the trial is such a result, not a dead actor: a retry would end the same. A trial whose worker dies
    goes on in another one; if that happens `DEATHS` times more in one epoch under one driver, it has crashed.

    What is a trial's on disk and in the store is touched only once a worker takes its first step: Tune may start one
    for a trial that it then gives to another.
    """

    def setup(
        self, config: dict[str, Any], *, place: str, dataset: Dataset, plan: Plan, threads: int, driver: int = 0
    ) -> None:
        """Build the trial that `config` names in the run at `place`, from its checkpoint where there is one.

        `driver` counts the drivers of the run.
        """
        torch.set_num_threads(threads)
        self._shared, self._driver = (RunFolder.at(place), dataset, plan), driver
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial into this process."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        folder, dataset, plan = self._shared
        self._trial: Trial | None = None
        self._board: Board | None = None
        self._broken: str | None = None
        self._is_new = True
        try:
            recipe = Recipe.from_json(config["recipe"])
            self._checkpoint = folder.checkpoint(config["trial"])
            self._trial = Trial(recipe, config["seed"], dataset, plan)
        except Exception as error:
            self._broken = _reason(error)

    def _take_up(self, trial: Trial) -> None:
        """Go on from the trial's last checkpoint, unless too many workers have died in the epoch after it."""
        folder = self._shared[0]
        self._is_new = False

        def read() -> None:
            if folder.store:
                folder.store.take_over(f"trials/{self._checkpoint.parent.name}", [self._checkpoint.name, ATTEMPTS])
            else:
                folder.info()  # a node that joined later may not share the folder, and then has no run.json
            checkpoint.sweep(self._checkpoint.parent)
            trial.load(self._checkpoint)

        try:
            patiently(read, self._checkpoint.parent)
        except StorageError:
            raise
        except Exception as error:
            self._broken = _reason(error)
        if not (trial.done or self._broken) and (deaths := self._deaths(trial.epoch)) > DEATHS:
            self._broken = f"its worker died {deaths} times in epoch {trial.epoch + 1}"

    def _deaths(self, epoch: int) -> int:
        """How many workers have died in the epoch after this one under this driver, this worker being alive."""
        file = self._checkpoint.with_name(ATTEMPTS)
        now = [self._driver, epoch]
        try:
            *before, count = json.loads(file.read_text())
        except (OSError, ValueError):
            before, count = [], 0
        count = count + 1 if before == now else 1

        def write() -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps([*now, count]))

        patiently(write, file)
        if store := self._shared[0].store:
            store.push(f"trials/{file.parent.name}/{ATTEMPTS}")  # the next worker may be on another machine
        return count - 1

    def step(self) -> dict[str, Any]:
        """Train one epoch, measure at a rung, save."""
        trial = self._trial
        ended = reason = None
        if trial and self._is_new:
            self._take_up(trial)
        if trial is None or self._broken:
            ended, reason = "crashed", self._broken
        elif not trial.done:
            measured, epoch = len(trial.rows), trial.epoch + 1
            try:
                trial.advance()
                self._show(trial, epoch, measured)
                trial.save(self._checkpoint)
                if store := self._shared[0].store:
                    store.push(f"trials/{self._checkpoint.parent.name}")
            except StorageError:
                raise
            except DivergedError as error:
                ended, reason = "diverged", str(error)
            except Exception as error:
                ended, reason = "crashed", _reason(error)
        if trial and not ended and trial.ended:
            ended, reason = "stopped", trial.ended
        return {
            "rows": trial.rows if trial else [],
            "epoch": trial.epoch if trial else 0,
            "ended": ended,
            "reason": reason,
        } | (_numbers(trial) if trial else {})

    def _show(self, trial: Trial, epoch: int, measured: int) -> None:
        """An epoch in TensorBoard, and the rungs after the first `measured`; what a full disk keeps out is left out."""
        try:
            self._board = self._board or Board(self._checkpoint.parent, trial.recipe, epoch - 1)
            self._board.losses(epoch, trial.losses)
            for row in trial.rows[measured:]:
                self._board.row(row)
                portrait = trial.portrait()
                self._board.layers(row["epoch"], portrait.layers)
                self._board.examples(portrait, row["epoch"], trial.dataset.class_names)
        except OSError:
            self._board = None

    def cleanup(self) -> None:
        """Close what the trial holds."""
        if self._board:
            with suppress(OSError):
                self._board.close()
        if self._trial:
            self._trial.close()


def _numbers(trial: Trial) -> dict[str, float]:
    """What the last epoch came to, flat, for the loggers of others to show."""
    found = {f"train/{name}": value for name, value in trial.losses.items()}
    for row in trial.rows[-1:]:
        if row["epoch"] == trial.epoch:
            found |= {name: row[name] for name in (*METRICS, *OTHER) if row.get(name) is not None}
    return found


def _reason(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
