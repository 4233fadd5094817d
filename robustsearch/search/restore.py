"""The study of a run that goes on: the one in its folder, or that made again from the event log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import TrialState

from ..errors import RunError
from ..runfolder import RunFolder
from .assemble import make_scheduler, make_searcher
from .ledger import Ledger
from .replay import replay
from .searcher import best_values, open_study, warm_start
from .settings import Settings
from .spaces import Sample


def restore_study(
    folder: RunFolder, settings: Settings, ledger: Ledger, samples: Sequence[Sample], epsilon: float
) -> tuple[optuna.Study, str]:
    """The study as the ledger knows it, and what was done for that, in words; the caller holds the folder's lock.

    A journal that is damaged, or lacks what the event log holds, is set aside as `journal.log.damaged`. Then every
    decision of the log is made again, with a new study.

    Raises:
        RunError: the decisions come out otherwise, as under another version of Optuna they may.
    """
    try:
        study = open_study(folder)
        if _fits(study, ledger):
            return study, _warm(study, settings, samples) if not ledger.entries else ""
    except OSError:
        raise
    except Exception:  # a damaged journal is read as anything: its entries have no checksum
        pass
    os.replace(folder.study_file, folder.study_file.with_name(f"{folder.study_file.name}.damaged"))
    study = open_study(folder)
    _warm(study, settings, samples)
    again = Ledger(None, max_latency=settings.max_latency)
    searcher = make_searcher(settings, again, study, epsilon)
    found = replay(ledger.log.events, searcher, make_scheduler(settings, again), again)
    if not found.equal:
        raise RunError(
            f"a lost study is made again from the event log, but the decisions of {folder.root} come out otherwise "
            f"with Optuna {optuna.__version__}: take the version that run.json names"
        )
    return study, f"The study was damaged; it is made again from {found.decisions} decisions of the event log."


def _warm(study: optuna.Study, settings: Settings, samples: Sequence[Sample]) -> str:
    if not settings.warm_start:
        return ""
    count = warm_start(study, RunFolder(Path(settings.warm_start)), samples)
    return f"The sampler starts from {count} trials of {settings.warm_start}."


def _fits(study: optuna.Study, ledger: Ledger) -> bool:
    """Whether the study holds every trial that the ledger knows from it, with its recipe and values."""
    trials = study.get_trials(deepcopy=False)
    for entry in ledger.searched:
        if entry.number is None or entry.number >= len(trials):
            return False
        trial = trials[entry.number]
        own = {"trial": entry.name, "recipe": entry.recipe.model_dump(mode="json")}
        if any(trial.user_attrs.get(name) != value for name, value in own.items()):
            return False
        if entry.state != "running" and trial.state == TrialState.COMPLETE and trial.values != best_values(entry.rows):
            return False
    return True
