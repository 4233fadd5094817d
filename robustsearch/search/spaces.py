"""Find a search space: one of `search_spaces/` by name, or a file of the user's.

A space either suggests recipes (a search) or lists them (a design of an ablation).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import TYPE_CHECKING, Any

import optuna
from pydantic import ValidationError

from robustsearch import search_spaces  # type: ignore[attr-defined]  # the folder `search_spaces`, as installed

from ..ablation.designs import Design, listed
from ..ablation.gaining import GainingPath
from ..errors import SpaceError
from ..recipe import Recipe, explain
from ..seeds import derive

if TYPE_CHECKING:
    from .settings import Settings

PROBES = 16
"""Recipes sampled from a space before a search, to find its mistakes and its kind."""


@dataclass(frozen=True)
class Sample:
    """Settings of a space, what they were drawn from, and their recipe."""

    settings: dict[str, Any]
    distributions: dict[str, optuna.distributions.BaseDistribution]
    recipe: Recipe


@dataclass(frozen=True)
class Size:
    """How many rows a design has, at least and at most, and seeds of each."""

    fewest: int
    most: int
    seeds: int

    @property
    def trials(self) -> str:
        """How many trials that is, in words that begin a sentence."""
        if self.fewest == self.most:
            return f"{self.most * self.seeds} trials"
        return f"At least {self.fewest * self.seeds} and at most {self.most * self.seeds} trials"

    @property
    def rows(self) -> str:
        """Rows and seeds, in words."""
        rows = f"{self.most}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        return f"{rows} rows with {self.seeds} seeds"


@dataclass(frozen=True)
class Space:
    """A search space."""

    name: str
    summary: str
    """First line of the module's documentation."""
    suggest: Callable[..., Recipe]
    """`suggest(trial, epsilon) -> Recipe`; a design has none, and this raises."""
    starts: tuple[dict[str, Any], ...]
    """Settings tried first."""
    design: Callable[[float], Mapping[str, Recipe] | GainingPath] | None = None
    """`design(epsilon) -> dict[str, Recipe]`, the rows of an ablation by name, or the path that finds its own; None in
    a search."""
    protocol: str | None = None
    """Evaluation protocol that the space asks for, where the user does not."""

    def path(self, epsilon: float) -> GainingPath | None:
        """The path whose rows follow from what they measure; None where the design lists its rows."""
        found = self._designed(epsilon)
        return found if isinstance(found, GainingPath) else None

    def rows(self, epsilon: float) -> Design:
        """The rows of a design, in order; of a path that finds its own, as many as there may be.

        Raises:
            SpaceError: they are no design, or are not all trained for the same number of epochs.
        """
        found = self._designed(epsilon)
        rows = listed(found.longest() if isinstance(found, GainingPath) else found)
        epochs = {recipe.training.epochs for recipe in rows.values()}
        if len(epochs) > 1:
            raise SpaceError(f"the rows of a design must have the same epochs, but have {sorted(epochs)}")
        return rows

    def size(self, epsilon: float, seeds: int) -> Size:
        """How large a design is with so many seeds of each row."""
        path, rows = self.path(epsilon), len(self.rows(epsilon))
        return Size(path.fewest if path else rows, rows, seeds)

    def _designed(self, epsilon: float) -> Mapping[str, Recipe] | GainingPath:
        assert self.design is not None
        with _blamed(f"`design` of space {self.name!r} must yield recipes, but"):
            return self.design(epsilon)

    def sample(self, epsilon: float, seed: int, count: int = PROBES) -> list[Sample]:
        """The starts, then random settings, `count` in all or more; of a design, its rows, which have no settings.

        Raises:
            SpaceError: the space raises, or yields what is no recipe.
        """
        if self.design:
            return [Sample({}, {}, recipe) for recipe in self.rows(epsilon).values()]
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=derive(seed, "sample") % 2**32))
        for start in self.starts:
            study.enqueue_trial(dict(start))
        found = []
        for _ in range(max(count, len(self.starts) + 1)):
            trial = study.ask()
            settings = f" for {trial.params}" if trial.params else ""
            with _blamed(f"`suggest` of space {self.name!r} must yield recipes, but{settings}"):
                recipe = self.suggest(trial, epsilon)
            if not isinstance(recipe, Recipe):
                raise SpaceError(f"`suggest` of space {self.name!r} must yield a Recipe, but yielded {recipe!r}")
            found.append(Sample(trial.params, trial.distributions, recipe))
        return found


def common_share(samples: Sequence[Sample]) -> float:
    """How much of a recipe's settings every recipe has, on average: 1 where none depends on another."""
    common = set.intersection(*(set(sample.distributions) for sample in samples))
    return fmean(len(common) / max(len(sample.distributions), 1) for sample in samples)


def find(name: str) -> Space:
    """The space of this name, or of this `.py` file.

    Raises:
        SpaceError: there is none, or it has neither `suggest` nor `design`, or both.
    """
    if name.endswith(".py"):
        module = _from_file(Path(name))
    elif name in search_spaces.names():
        module = importlib.import_module(f"{search_spaces.__name__}.{name}")
    else:
        raise SpaceError(f"the space must be one of {', '.join(search_spaces.names())} or a .py file, but got {name!r}")
    suggest, design = (getattr(module, kind, None) for kind in ("suggest", "design"))
    if callable(suggest) == callable(design):
        has = "both" if design else "neither"
        raise SpaceError(
            f"a space must define `suggest(trial, epsilon) -> Recipe` or `design(epsilon) -> dict[str, Recipe]`, "
            f"but {name} defines {has}"
        )
    summary = (module.__doc__ or name).strip().splitlines()[0]
    starts = tuple(getattr(module, "STARTS", ()))
    return Space(Path(name).stem, summary, suggest or _no_suggest, starts, design, getattr(module, "PROTOCOL", None))


def of(settings: Settings) -> Space:
    """The space of a run: the one that it names, or the design that ablates a trial.

    Raises:
        SpaceError: there is none.
    """
    base, kind = settings.base, settings.design
    if base is None or kind is None:
        return find(settings.space)
    from .ablate import design_of

    design = design_of(kind, base, settings.seed)
    summary = f"Ablation ({kind}) of {Recipe.from_json(base).describe()}."
    return Space(settings.space, summary, _no_suggest, (), lambda epsilon: design)


def _no_suggest(*_: object) -> Recipe:
    raise SpaceError("a design lists its recipes, and suggests none")


@contextmanager
def _blamed(rule: str) -> Iterator[None]:
    """What the user's code raises, as a `SpaceError` that says which rule it breaks."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValidationError):
            raise SpaceError(f"{rule} one breaks a rule: {explain(error)}") from error
        raise SpaceError(f"{rule} it raised {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SpaceError(f"the space must be a file that is there, but {path} is not")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SpaceError(
            f"the space must be Python that runs, but {path} raised {type(error).__name__}: {error}"
        ) from error
    return module
