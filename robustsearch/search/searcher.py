"""Optuna's ask and tell behind Ray Tune's `Searcher`, for several objectives.

The study lives in the run folder, so that optuna-dashboard shows it while the search runs. A trial that diverges or
crashes is told as FAIL. One that the scheduler stopped is told as COMPLETE with the values it had: the sampler learns
from partial values (measured better than PRUNED). A trial's values are those of its best rung by robust accuracy. A
limit on latency is a constraint of the study; a trial above it is complete, and infeasible.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ..errors import RunError, SpaceError
from ..pareto import OBJECTIVES, is_measured
from ..recipe import Recipe
from ..runfolder import RunFolder
from ..seeds import derive
from .journal import Journal
from .ledger import Entry, Ledger
from .proposer import LedgerSearcher
from .racing import next_repeat
from .spaces import Sample, Space, common_share


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
        # A setting that not every recipe has is drawn at random, and no news to who wrote the space.
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=start, warn_independent_sampling=False)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=min(50, max(8, trials // 5)))
    return optuna.samplers.RandomSampler(seed=seed)


GP_TRIALS = 200
"""Trials up to which a Gaussian process is asked: a question takes it 2 to 6 s in space `lwta`, TPE milliseconds."""


def choose_sampler(samples: Sequence[Sample], trials: int) -> str:
    """What `auto` stands for: GP for a short search, unless most settings depend on others; else TPE.

    Optuna's GP models the settings that every recipe has, and draws the others at random. It was ahead all the same
    where three of seven depend on others (docs/log.md).
    """
    return "gp" if trials <= GP_TRIALS and common_share(samples) >= 0.5 else "tpe"


def open_study(folder: RunFolder) -> optuna.Study:
    """The study of a run, new or as an earlier driver left it; the caller holds the folder's lock."""
    # A lock on the journal is one that a killed driver left, and Optuna would wait for it.
    folder.study_file.with_name(f"{folder.study_file.name}.lock").unlink(missing_ok=True)
    return make_study(folder.name, _journal(folder))


def _journal(folder: RunFolder) -> JournalStorage:
    """The storage of a run's study."""
    return JournalStorage(Journal(folder.study_file))


def make_study(name: str, storage: optuna.storages.BaseStorage | None = None) -> optuna.Study:
    """A study of the project's objectives; in memory without a storage."""
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        directions=["maximize" if way == "max" else "minimize" for way in OBJECTIVES.values()],
        load_if_exists=True,
    )
    with _experimental():
        study.set_metric_names(list(OBJECTIVES))
    return study


def warm_start(study: optuna.Study, folder: RunFolder, samples: Sequence[Sample]) -> int:
    """Give a new study what the trials of an earlier run of the same space have taught; returns their number.

    Raises:
        RunError: the earlier run has no completed trial.
        SpaceError: a setting had other values there.
    """
    if not folder.study_file.exists():
        raise RunError(f"a warm start needs the folder of a search, but {folder.root} has no {folder.study_file.name}")
    old = optuna.load_study(study_name=folder.name, storage=_journal(folder))
    done = old.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        raise RunError(f"a warm start needs completed trials, but {folder.root} has none")
    known = {name: kind for sample in samples for name, kind in sample.distributions.items()}
    for trial in done:
        for name, kind in trial.distributions.items():
            try:
                optuna.distributions.check_distribution_compatibility(known.get(name, kind), kind)
            except ValueError as error:
                raise SpaceError(
                    f"a warm start needs the same choices of every setting, but those of {name!r} differ: {error}"
                ) from error
    there = sum("from" in trial.user_attrs for trial in study.get_trials(deepcopy=False))  # from a driver that died
    for trial in done[there:]:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                values=trial.values,
                user_attrs={"from": folder.name},
            )
        )
    return len(done)


def warm_started(folder: RunFolder) -> list[optuna.trial.FrozenTrial]:
    """The trials that the study of a run was given before its own."""
    if not folder.study_file.exists():
        return []
    study = optuna.load_study(study_name=folder.name, storage=_journal(folder))
    return [trial for trial in study.get_trials() if "from" in trial.user_attrs]


class OptunaSearcher(LedgerSearcher):
    """Proposes the baseline, what an earlier driver left unfinished, what the sampler asks for, and repeats.

    Attributes:
        study: Optuna's.
        asked: how many trials the study has been asked for, those of a warm start included.
    """

    def __init__(
        self,
        space: Space,
        ledger: Ledger,
        study: optuna.Study,
        *,
        baseline: Recipe | None,
        overrides: dict[str, Any],
        epsilon: float,
        sampler: str,
        trials: int,
        repeats: int,
        seed: int,
    ) -> None:
        """A searcher over a study that is new or belongs to the ledger.

        Args:
            space: where recipes come from.
            ledger: of the run.
            study: `open_study` of the same run.
            baseline: the first trial, not of the sampler's choice; None for none.
            overrides: dotted recipe fields that every recipe of the space is given.
            epsilon: l_inf radius of the evaluation, for the space.
            sampler: as `make_sampler` knows it.
            trials: recipes to ask the sampler for.
            repeats: at most so many further seeds of candidates for the front, once the sampler's trials have ended.
            seed: of the sampler, and of every first trial of a recipe.
        """
        super().__init__(ledger)
        self._space, self._overrides, self._epsilon = space, overrides, epsilon
        self._sampler, self._trials, self._repeats, self._seed = sampler, trials, repeats, seed
        if baseline and "baseline" not in ledger.entries:
            self._pending.appendleft(ledger.ask("baseline", "baseline", baseline, seed, None))
        self.study = study
        self.asked = sum(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))
        self._reconcile()
        own = [trial for trial in study.get_trials(deepcopy=False) if "from" not in trial.user_attrs]
        if all(trial.state == TrialState.WAITING for trial in own):
            for start in space.starts[len(own) :]:
                study.enqueue_trial(dict(start))

    @property
    def left(self) -> int:
        """Trials that the sampler has not been asked for yet."""
        return max(0, self._trials - len(self._ledger.searched))

    def _next(self) -> Entry | str | None:
        """What the sampler asks for, then repeats."""
        if self.left:
            return self._ask()
        if (repeat := self._repeat()) is not None:
            return repeat
        return str(Searcher.FINISHED)

    def ask_study(self) -> optuna.trial.Trial:
        """The sampler's next trial, which the ledger does not know yet."""
        # A sampler of its own seed for each question: a resumed search asks as an uninterrupted one would.
        self.study.sampler = make_sampler(self._sampler, derive(self._seed, "sampler", self.asked), self._trials)
        self.asked += 1
        return self.study.ask()

    def _ask(self) -> Entry:
        trial = self.ask_study()
        recipe = self._space.suggest(trial, self._epsilon).replace(**self._overrides)
        trial.set_user_attr("trial", self._next_name())
        trial.set_user_attr("recipe", recipe.model_dump(mode="json"))
        return self._ledger.ask(self._next_name(), "search", recipe, self._seed, trial.number)

    def _next_name(self) -> str:
        return f"{len(self._ledger.searched):04d}"

    def give_up(self, number: int) -> None:
        """Fail a trial that a driver asked for and died before it had a recipe; a start is asked for again."""
        trials = self.study.get_trials(deepcopy=False)
        start = trials[number].system_attrs.get("fixed_params")
        queue = [trial.system_attrs.get("fixed_params") for trial in trials if trial.state == TrialState.WAITING]
        if start and start not in queue:
            self.study.enqueue_trial(start)  # first: a driver that dies in between finds it there
        self.study.tell(number, state=TrialState.FAIL)

    def _repeats_left(self) -> int:
        return self._repeats - sum(entry.role == "repeat" for entry in self._ledger.entries.values())

    def _repeat(self) -> Entry | None:
        """A candidate for the front with another seed, once no trial of the sampler's is running."""
        if self._repeats_left() <= 0 or any(entry.role == "search" for entry in self._ledger.running.values()):
            return None
        if (chosen := next_repeat(self._ledger)) is None:
            return None
        leader, seeds = chosen
        return self._ledger.ask(f"{leader.name}-s{seeds}", "repeat", leader.recipe, self._seed + seeds, None)

    def _ended(self, entry: Entry) -> None:
        """Tell the sampler how a trial ended."""
        if entry.number is None:
            return
        if entry.state in ("completed", "stopped") and (values := best_values(entry.rows)):
            if self._ledger.max_latency is not None:
                self._constrain(entry.number, values[1] - self._ledger.max_latency)
            self.study.tell(entry.number, values, skip_if_finished=True)
        else:
            self.study.tell(entry.number, state=TrialState.FAIL, skip_if_finished=True)

    def _constrain(self, number: int, excess: float) -> None:
        """Tell the study by how many ms a trial is above the limit; below 0 it is feasible."""
        frozen = self.study.get_trials(deepcopy=False)[number]
        if frozen.state == TrialState.RUNNING:
            optuna.trial.Trial(self.study, frozen._trial_id).set_constraint("latency_p50", excess)

    def _reconcile(self) -> None:
        """Bring the study to what the ledger knows, after a driver died between the two."""
        known = {entry.number: entry for entry in self._ledger.searched}
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state != TrialState.RUNNING:
                continue
            if trial.number not in known:
                self._adopt(trial)
            elif known[trial.number].state != "running":
                self._ended(known[trial.number])

    def _adopt(self, trial: optuna.trial.FrozenTrial) -> None:
        """Ask for what a driver asked the study for and died before it could log, or lost the log's last line."""
        recipe = trial.user_attrs.get("recipe")
        if recipe is None or trial.user_attrs["trial"] != self._next_name():
            self.give_up(trial.number)
        else:
            entry = self._ledger.ask(self._next_name(), "search", Recipe.of(recipe), self._seed, trial.number)
            self._pending.append(entry)


def best_values(rows: Sequence[dict[str, Any]]) -> list[float] | None:
    """The objectives of the rung with the highest robust accuracy; None where no rung has finite ones."""
    measured = [[float(row[name]) for name in OBJECTIVES] for row in rows if is_measured(row)]
    finite = [values for values in measured if all(map(math.isfinite, values))]
    return max(finite, key=lambda values: values[0]) if finite else None


@contextmanager
def _experimental() -> Iterator[None]:
    """Optuna calls some of what is used here experimental; the version range of pyproject.toml answers for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
