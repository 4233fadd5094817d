"""Optuna's ask and tell behind Ray Tune's `Searcher`, for several objectives.

The study lives in the run folder, so that optuna-dashboard shows it while the search runs. A trial that diverges or
crashes is told as FAIL. One that the scheduler stopped is told as COMPLETE with the values it had: the sampler learns
from partial values (measured better than PRUNED). A trial's values are those of its best rung by robust accuracy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ..pareto import OBJECTIVES
from ..recipe import Recipe
from ..runfolder import RunFolder
from ..seeds import derive
from .ledger import Entry, Ledger
from .spaces import Sample, Space, is_numeric


def make_sampler(name: str, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """An Optuna sampler by name; the first third of a short search, at most ten trials, is random."""
    start = min(10, max(4, trials // 3))
    seed %= 2**32
    if name == "tpe":
        with _experimental():
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=start, multivariate=True, group=True, constant_liar=True
            )
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=start)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=min(50, max(8, trials // 5)))
    return optuna.samplers.RandomSampler(seed=seed)


def choose_sampler(samples: Sequence[Sample]) -> str:
    """What `auto` stands for: GP for a space of independent numbers, else TPE, which takes conditions too."""
    return "gp" if is_numeric(samples) else "tpe"


class OptunaSearcher(Searcher):  # type: ignore[misc]
    """Proposes the baseline, then whatever an earlier driver left unfinished, then what the sampler asks for."""

    def __init__(
        self,
        space: Space,
        ledger: Ledger,
        folder: RunFolder,
        *,
        baseline: Recipe,
        overrides: dict[str, Any],
        epsilon: float,
        sampler: str,
        trials: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._space, self._ledger, self._overrides, self._epsilon = space, ledger, overrides, epsilon
        self._sampler, self._trials, self._seed = sampler, trials, seed
        self._names: dict[str, str] = {}
        self._pending: list[Entry] = ledger.unfinished()
        if "baseline" not in ledger.entries:
            self._pending.insert(0, ledger.ask("baseline", "baseline", baseline, seed, None))
        # This driver holds the folder: a lock on the journal is one that a killed driver left, and Optuna would wait.
        folder.study_file.with_name(f"{folder.study_file.name}.lock").unlink(missing_ok=True)
        self.study = optuna.create_study(
            study_name=folder.name,
            storage=JournalStorage(JournalFileBackend(str(folder.study_file))),
            directions=["maximize" if way == "max" else "minimize" for way in OBJECTIVES.values()],
            load_if_exists=True,
        )
        with _experimental():
            self.study.set_metric_names(list(OBJECTIVES))
        self._reconcile()
        if not self.study.trials:
            for start in space.starts:
                self.study.enqueue_trial(dict(start))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial's config: its name, recipe and seed; `FINISHED` when there is none."""
        if self._pending:
            entry = self._pending.pop(0)
        elif len(self._ledger.searched()) < self._trials:
            entry = self._ask()
        else:
            return str(Searcher.FINISHED)
        self._names[trial_id] = entry.name
        return {"trial": entry.name, "recipe": entry.recipe.to_json(), "seed": entry.seed}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: what a rung says is recorded by the scheduler, which decides on it."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the sampler how a trial ended. `error`: its worker died more often than is retried."""
        entry = self._ledger.entries[self._names.pop(trial_id)]
        if error:
            self._ledger.finish(entry.name, "crashed", "its worker died", entry.trained)
        self._tell(entry)

    def _ask(self) -> Entry:
        number = len(self.study.get_trials(deepcopy=False))
        # A sampler of its own seed for each question: a resumed search asks as an uninterrupted one would.
        self.study.sampler = make_sampler(self._sampler, derive(self._seed, "sampler", number), self._trials)
        trial = self.study.ask()
        recipe = self._space.suggest(trial, self._epsilon).replace(**self._overrides)
        name = f"{len(self._ledger.searched()):04d}"
        trial.set_user_attr("trial", name)
        trial.set_user_attr("recipe", recipe.model_dump(mode="json"))
        return self._ledger.ask(name, "search", recipe, self._seed, trial.number)

    def _tell(self, entry: Entry) -> None:
        if entry.number is None:
            return
        if entry.state in ("completed", "stopped") and (values := best_values(entry.rows)):
            self.study.tell(entry.number, values, skip_if_finished=True)
        else:
            self.study.tell(entry.number, state=TrialState.FAIL, skip_if_finished=True)

    def _reconcile(self) -> None:
        """Bring the study to what the ledger knows, after a driver died between the two."""
        known = {entry.number: entry for entry in self._ledger.searched()}
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state != TrialState.RUNNING:
                continue
            if trial.number not in known:
                self.study.tell(trial.number, state=TrialState.FAIL)
            elif known[trial.number].state != "running":
                self._tell(known[trial.number])

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the ledger: the event log is the state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


def best_values(rows: Sequence[dict[str, Any]]) -> list[float] | None:
    """The objectives of the rung with the highest robust accuracy; None where no rung has finite ones."""
    measured = [
        [float(row[name]) for name in OBJECTIVES]
        for row in rows
        if all(row.get(name) is not None for name in OBJECTIVES)
    ]
    finite = [values for values in measured if all(map(math.isfinite, values))]
    return max(finite, key=lambda values: values[0]) if finite else None


@contextmanager
def _experimental() -> Iterator[None]:
    """Optuna calls some of what is used here experimental; the version range of pyproject.toml answers for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
