"""A finished run, made here without a cluster: what a search leaves behind, for the tests of what reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robustsearch import data
from robustsearch.evaluation.protocols import PROTOCOLS
from robustsearch.recipe import Recipe
from robustsearch.runfolder import RunFolder
from robustsearch.search.ledger import Ledger
from robustsearch.trial import Plan, run_trial


def finished_run(root: Path, recipes: Mapping[str, Recipe], rungs: tuple[int, ...] = ()) -> RunFolder:
    """A run of these trials on a tenth of digits, measured after `rungs` and after the last epoch."""
    folder = RunFolder(root)
    folder.write_info({"name": root.name, "settings": {"dataset": "digits", "fraction": 0.1}})
    dataset = data.load("digits", fraction=0.1)
    plan = Plan(rungs, PROTOCOLS["quick"], dataset.epsilon, dataset.epsilon_l2)
    with Ledger(folder) as ledger:
        for index, (trial, recipe) in enumerate(recipes.items()):
            ledger.ask(trial, "search", recipe, 0, index)
            run_trial(
                recipe,
                0,
                lambda row, trial=trial: ledger.report(trial, dict(row)),
                dataset=dataset,
                plan=plan,
                checkpoint=folder.checkpoint(trial),
            )
            ledger.finish(trial, "completed", epoch=recipe.training.epochs)
    return folder
