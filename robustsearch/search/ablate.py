"""The ablation of a trial of an earlier run: the settings that it takes from there, and its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import results
from ..ablation.designs import Design
from ..ablation.gaining import GainingPath
from ..ablation.point import DESIGNS, design
from ..errors import UserError
from ..recipe import Recipe
from ..runfolder import RunFolder
from .assemble import plain

INHERITED = ("dataset", "data_dir", "fraction", "epochs", "protocol", "cpus_per_trial", "gpus_per_trial")
"""Settings of the earlier run that hold for the ablation too, unless others are given."""


def of_point(given: dict[str, Any]) -> dict[str, Any]:
    """Settings of an ablation that was asked for as `ablate` (RUN:TRIAL) and `design`.

    Raises:
        UserError: there is no such run or trial, or a space was given too.
    """
    given = dict(given)
    where = given.pop("ablate")
    folder, colon, trial = where.rpartition(":")
    if not colon or not folder:
        raise UserError(f"`--ablate` must be RUN:TRIAL, the folder of a run and a trial of it, but got {where!r}")
    if "space" in given:
        raise UserError(f"an ablation has its rows from a trial, so it takes no `--space`, but got {given['space']!r}")
    run = RunFolder(Path(folder))
    earlier = run.info().get("settings", {})
    recipes = {row["trial"]: row["recipe"] for row in results.read(run.results).to_pylist() if row["recipe"]}
    if trial not in recipes:
        known = ", ".join(sorted(recipes)) or "none"
        raise UserError(f"the trial must be one that {run.root} has results of ({known}), but got {trial!r}")
    inherited = {name: earlier[name] for name in INHERITED if name in earlier}
    own = {"space": f"{run.name}-{trial}", "base": recipes[trial], "design": DESIGNS[0]}
    return inherited | own | given


def design_of(kind: str, base: str, seed: int) -> Design | GainingPath:
    """The design of this name around a recipe, as JSON, whose plain network is trained as long as it is.

    Raises:
        SpaceError: there is no such design, or the recipe is the plain one.
    """
    recipe = Recipe.from_json(base)
    return design(kind, plain(recipe.training.epochs), recipe, seed)
