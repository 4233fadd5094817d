"""A run's searcher and scheduler, from its settings: for the run itself, its replay and its simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..ablation.gaining import GainingPath
from ..evaluation.protocols import protocol
from ..recipe import Mix, Recipe, Training
from .halving import rungs
from .settings import SEEDS, Settings

if TYPE_CHECKING:
    import optuna

    from ..data import Dataset
    from ..trial import Plan
    from .ledger import Entry, Ledger
    from .listed import ListedSearcher
    from .scheduler import RungScheduler
    from .searcher import OptunaSearcher
    from .spaces import Sample


def plan_of(settings: Settings, dataset: Dataset) -> Plan:
    """When and how the trials of a run with these settings are measured."""
    from ..trial import Plan

    return Plan(
        rungs=rungs(settings.epochs, settings.eta, settings.grace),
        protocol=protocol(settings.protocol),
        epsilon=dataset.epsilon,
        epsilon_l2=dataset.epsilon_l2,
        engine=settings.engine,
    )


def sampler_of(settings: Settings, samples: list[Sample]) -> str:
    """The sampler that the settings name; `auto` follows the space and the number of trials."""
    from .searcher import choose_sampler

    return choose_sampler(samples, settings.trials) if settings.sampler == "auto" else settings.sampler


def make_searcher(
    settings: Settings, ledger: Ledger, study: optuna.Study | None, epsilon: float, *, baseline: bool = True
) -> OptunaSearcher | ListedSearcher:
    """The searcher of a run with these settings; `epsilon` is the l_inf radius of the evaluation.

    A design needs no study.
    """
    from . import spaces
    from .gaining import GainingSearcher
    from .listed import ListedSearcher
    from .searcher import OptunaSearcher

    space = spaces.of(settings)
    if space.design:
        trained, seeds = {"training.epochs": settings.epochs}, settings.seeds or SEEDS
        if path := space.path(epsilon):
            path = GainingPath(path.start.replace(**trained), path.end.replace(**trained))
            return GainingSearcher(path, ledger, seeds=seeds, seed=settings.seed)
        rows = {name: recipe.replace(**trained) for name, recipe in space.rows(epsilon).items()}
        return ListedSearcher(rows, ledger, seeds=seeds, seed=settings.seed)
    assert study is not None
    return OptunaSearcher(
        space,
        ledger,
        study,
        baseline=plain(settings.epochs) if baseline else None,
        overrides={"training.epochs": settings.epochs},
        epsilon=epsilon,
        sampler=sampler_of(settings, space.sample(epsilon, settings.seed)),
        trials=settings.trials,
        repeats=settings.most_repeats,
        seed=settings.seed,
    )


def make_scheduler(
    settings: Settings, ledger: Ledger, changed: Callable[[Entry], object] = lambda entry: None
) -> RungScheduler:
    """The scheduler of a run with these settings; `changed` is called after each change of a trial."""
    from .scheduler import RungScheduler

    return RungScheduler(ledger, eta=settings.eta if settings.scheduler == "mo-asha" else None, changed=changed)


def plain(epochs: int) -> Recipe:
    """The baseline: a plain ReLU WRN-34-1, trained on clean images as long as the others."""
    return Recipe(mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0), training=Training(epochs=epochs))
