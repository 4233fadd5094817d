"""Every point at which a driver may die: before, within and after each of its writes.

A search with the real searcher, scheduler, ledger, event log, results and study runs in simulated time (no cluster, no
training), dies at one write, and goes on in a new driver. That is done for every write there is. Then nothing may be
lost or doubled, whoever reads it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from optuna.trial import TrialState

from robustsearch import results
from robustsearch.events import EventLog, read
from robustsearch.recipe import Recipe
from robustsearch.runfolder import RunFolder
from robustsearch.search.assemble import make_scheduler, make_searcher
from robustsearch.search.journal import Journal
from robustsearch.search.ledger import Ledger
from robustsearch.search.replay import replay
from robustsearch.search.restore import restore_study
from robustsearch.search.searcher import best_values, make_study, open_study
from robustsearch.search.settings import Settings
from robustsearch.search.simulate import Curve, simulate

When = Literal["before", "within", "after"]
WHEN: tuple[When, ...] = ("before", "within", "after")
EPSILON, EPOCHS = 0.1, 8

SPACE = '''"""Two settings, and two starts."""
from robustsearch.recipe import Mix, Recipe, Training

STARTS = [{"lr": 0.1, "pgd": 0.5}, {"lr": 0.05, "pgd": 1.0}]


def suggest(trial, epsilon):
    pgd = trial.suggest_float("pgd", 0, 1)
    lr = trial.suggest_float("lr", 0.01, 1)
    return Recipe(mix=Mix(clean=1 - pgd, noise=0, fgsm=0, pgd=pgd, cw=0), training=Training(lr=lr))
'''


class Died(BaseException):
    """The driver is dead: no handler of an `Exception` may see it."""


class Death:
    """Counts the writes of a driver, and ends it at one of them."""

    def __init__(self, at: int | None = None, when: When = "before") -> None:
        """At write number `at`, the first of which is 0; None is never."""
        self.at, self.when, self.count = at, when, 0

    def write(self, write: Callable[[], Any], tear: Callable[[], object]) -> Any:
        """Do a write, or die before, within (`tear` does a part of it) or after it."""
        due, self.count = self.count == self.at, self.count + 1
        if not due:
            return write()
        if self.when == "within":
            tear()
        elif self.when == "after":
            write()
        raise Died

    @contextmanager
    def lurking(self) -> Iterator[None]:
        """Every write of the event log, the study and the results passes here."""
        append, journal, table = EventLog._write, Journal._append, results._write

        def _log(log: EventLog, line: bytes) -> None:
            self.write(lambda: append(log, line), lambda: append(log, line[: len(line) // 2]))

        def _study(study: Journal, logs: list[dict[str, Any]]) -> None:
            def tear() -> None:
                size = study._path.stat().st_size
                journal(study, logs)
                os.truncate(study._path, (size + study._path.stat().st_size) // 2)

            self.write(lambda: journal(study, logs), tear)

        def _results(folder: Path, name: str, rows: Any) -> Any:
            def tear() -> None:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f".{name}.part").write_bytes(b"PAR1 torn")

            return self.write(lambda: table(folder, name, rows), tear)

        with (
            patch.object(EventLog, "_write", _log),
            patch.object(Journal, "_append", _study),
            patch.object(results, "_write", _results),
        ):
            yield


def settings(space: Path, *, trials: int = 4, sampler: str = "random", repeats: int = 0) -> Settings:
    """Of the searches here; `space` is where `SPACE` lies."""
    return Settings(str(space), trials=trials, epochs=EPOCHS, sampler=sampler, repeats=repeats)


def curve(recipe: Recipe, seed: int) -> Curve:
    """A learning curve in closed form; recipes with a high learning rate diverge."""
    if recipe.training.lr > 0.85:
        return Curve([], [3.0], ("diverged", "because", 3))
    skill = 0.4 + 0.5 * recipe.mix.pgd * (1 - recipe.training.lr) + 0.01 * seed
    rows = [
        {"epoch": epoch, "robust": skill * epoch / EPOCHS, "latency_p50": 1 + recipe.training.lr, "n": 200}
        for epoch in (4, EPOCHS)
    ]
    return Curve(rows, [4.0, 8.0])


def drive(folder: RunFolder, chosen: Settings, death: Death, *, workers: int = 2) -> bool:
    """One driver, from its start to the end of the search or its own; whether it reached the end of the search."""
    with death.lurking():
        try:
            with Ledger(folder) as ledger:
                ledger.start({})
                study, _ = restore_study(folder, chosen, ledger, [], EPSILON)
                searcher, scheduler = make_searcher(chosen, ledger, study, EPSILON), make_scheduler(chosen, ledger)
                for _ in simulate(searcher, scheduler, curve, workers=workers):
                    pass
                ledger.log.append("end")
        except Died:
            return False
    return True


def faults(folder: RunFolder, chosen: Settings) -> list[str]:
    """What is wrong with a run that ended: lost, doubled, torn, or not what the log says."""
    wrong = []
    events, _ = read(folder.events_file)
    ledger = Ledger.of(events)
    asked = Counter(event.trial for event in events if event.kind == "ask")
    ended = Counter(event.trial for event in events if event.kind in ("tell", "stop", "fail"))
    names = [f"{number:04d}" for number in range(chosen.trials)]
    if sorted(name for name in asked if name and "-s" not in name) != sorted([*names, "baseline"]):
        wrong.append(f"asked for {sorted(asked)}")
    if set(asked.values()) | set(ended.values()) != {1} or asked.keys() != ended.keys():
        wrong.append(f"asked {asked}, ended {ended}")
    rows = [
        (row["trial"], row["epoch"], row["robust"], row["state"]) for row in results.read(folder.results).to_pylist()
    ]
    known = [
        (entry.name, row["epoch"], row.get("robust"), entry.state)
        for entry in ledger.entries.values()
        for row in entry.rows
    ]
    if Counter(rows) != Counter(known) or len(set(rows)) != len(rows):
        wrong.append("the results are not the log's")
    told = {trial.user_attrs.get("trial"): trial for trial in open_study(folder).get_trials()}
    for entry in ledger.searched:
        trial = told.pop(entry.name)
        values = None if entry.state in results.FAILED else best_values(entry.rows)
        if (trial.number, trial.values) != (entry.number, values) or not trial.state.is_finished():
            wrong.append(f"the study has {trial.state} {trial.values} for {entry.name}")
    if any(trial.state != TrialState.FAIL for trial in told.values()):
        wrong.append(f"the study has trials that the log has not: {told}")
    again = Ledger(None)
    searcher = make_searcher(chosen, again, make_study("again"), EPSILON)
    found = replay(events, searcher, make_scheduler(chosen, again), again)
    if not found.equal:
        wrong.append(f"the replay differs: {found}")
    return wrong
