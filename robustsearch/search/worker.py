"""The Tune trainable: one actor that runs trial after trial, each from its last checkpoint in the run folder."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import torch
from ray import tune

from ..data import Dataset
from ..errors import DivergedError
from ..recipe import Recipe
from ..runfolder import RunFolder
from ..trial import Plan, Trial
from .board import Board


class Worker(tune.Trainable):  # type: ignore[misc]
    """A step is an epoch; a result carries every rung measured so far, so that none is lost on the way.

    `ended` is the state that a trial came to by itself, with its reason: stopped by its own watch, or failed. An
    exception of the trial is such a result, not a dead actor: a retry would end the same.
    """

    def setup(self, config: dict[str, Any], *, root: str, dataset: Dataset, plan: Plan, threads: int) -> None:
        """Build the trial that `config` names, from its checkpoint where there is one."""
        torch.set_num_threads(threads)
        self._shared = (RunFolder(Path(root)), dataset, plan)
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
        try:
            folder.info()  # a node that joined later may not share the folder, and then has no run.json
            recipe = Recipe.from_json(config["recipe"])
            self._checkpoint = folder.checkpoint(config["trial"])
            self._trial = Trial(recipe, config["seed"], dataset, plan)
            self._trial.load(self._checkpoint)
            if not self._trial.done:
                self._board = Board(self._checkpoint.parent, recipe, self._trial.epoch)
        except Exception as error:
            self._broken = _reason(error)

    def step(self) -> dict[str, Any]:
        """Train one epoch, measure at a rung, save."""
        trial = self._trial
        ended = reason = None
        if trial is None or self._broken:
            ended, reason = "crashed", self._broken
        elif not trial.done:
            measured, epoch = len(trial.rows), trial.epoch + 1
            try:
                trial.advance()
                assert self._board is not None
                self._board.losses(epoch, trial.losses)
                for row in trial.rows[measured:]:
                    self._board.row(row)
                    portrait = trial.portrait()
                    self._board.layers(row["epoch"], portrait.layers)
                    self._board.examples(row["epoch"], portrait.clean, portrait.perturbed)
                trial.save(self._checkpoint)
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
        }

    def cleanup(self) -> None:
        """Close what the trial holds."""
        if self._board:
            self._board.close()
        if self._trial:
            self._trial.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: checkpoints lie in the run folder, written by the trial itself."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: `setup` has loaded the trial's own."""


def _reason(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
