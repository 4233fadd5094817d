"""`python -m robustsearch.replay`: make the decisions of a run again from its event log, or others on its trials."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli import Parser
from .errors import UserError
from .runfolder import RunFolder

if TYPE_CHECKING:
    from .search.settings import Settings

DESCRIPTION = """\
Without options: feed what the log of a run says was measured to a fresh sampler
and scheduler, and check that every decision comes out as logged.
With options: simulate another sampler or scheduler on the trials of the run. It
trains nothing; a recipe that the run did not try is answered by its nearest."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = Parser(
        "python -m robustsearch.replay", usage="python -m robustsearch.replay RUN [options]", description=DESCRIPTION
    )
    root.argument_default = argparse.SUPPRESS
    root.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    root.add_argument("--sampler", metavar="NAME", help="auto, tpe, gp, nsga2, random")
    root.add_argument("--scheduler", metavar="NAME", help="mo-asha, none")
    root.add_argument("--eta", type=int, metavar="N", help="rungs N times apart; at each the best one in N go on")
    root.add_argument("--trials", type=int, metavar="N", help="recipes to ask for")
    root.add_argument("--seed", type=int, metavar="S", help="seed of the sampler")
    root.add_argument("--concurrency", type=int, metavar="K", help="trials at a time (2)")
    return root


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0 done, 1 a decision came out otherwise, 2 bad input."""
    given = vars(parser().parse_args(arguments))
    try:
        return _replay(RunFolder.fetched(given.pop("run")), given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _replay(folder: RunFolder, given: dict[str, Any]) -> int:
    info = folder.info()

    import optuna

    from .search.settings import Settings

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = {field.name for field in fields(Settings)}
    settings = Settings(**{name: value for name, value in info.get("settings", {}).items() if name in known})
    settings = replace(settings, **given)
    settings.check()
    if given and settings.seeds:
        raise UserError(f"only a search can be simulated, but {folder.root} is the run of a design")
    return _simulate(folder, settings, info["epsilon"]) if given else _check(folder, settings, info["epsilon"])


def _check(folder: RunFolder, settings: Settings, epsilon: float) -> int:
    from .events import read
    from .search.assemble import make_scheduler, make_searcher
    from .search.ledger import Ledger
    from .search.replay import replay
    from .search.searcher import make_study, warm_started

    events, _ = read(folder.events_file)
    ledger = Ledger(None, max_latency=settings.max_latency)
    study = make_study(folder.name)
    study.add_trials(warm_started(folder))
    searcher = make_searcher(settings, ledger, study, epsilon)
    found = replay(events, searcher, make_scheduler(settings, ledger), ledger)
    if found.equal:
        print(f"{folder.name}: {found.decisions} decisions, every one made again as logged")
        return 0
    print(f"{folder.name}: of {found.decisions} decisions, this is the first that comes out otherwise")
    for name, decision in (("logged", found.logged), ("now", found.made)):
        print(f"{name}: {json.dumps(decision)}")
    return 1


def _simulate(folder: RunFolder, settings: Settings, epsilon: float) -> int:
    from . import results
    from .events import read
    from .search.assemble import make_scheduler, make_searcher
    from .search.halving import rungs
    from .search.ledger import Ledger
    from .search.live import Attained
    from .search.recorded import TIMES, Recorded
    from .search.searcher import make_study
    from .search.simulate import simulate

    rows = results.read(folder.results).to_pylist()
    recorded = Recorded(rows, rungs(settings.epochs, settings.eta, settings.grace))
    base = min((row["latency_p50"] for row in rows if row["role"] == "baseline" and row["latency_p50"]), default=None)
    before = Ledger.of(read(folder.events_file)[0])
    spent = sum(entry.rows[-1][name] or 0.0 for entry in before.searched if entry.rows for name in TIMES)
    print(f"{'as run':<10} {len(before.searched):>5} trials {spent:>9.0f} s  {_percent(Attained(before))}")
    ledger = Ledger(None, max_latency=settings.max_latency)
    searcher = make_searcher(replace(settings, repeats=0), ledger, make_study(folder.name), epsilon, baseline=False)
    attained = Attained(ledger, base)
    cost = 0.0
    for moment in simulate(
        searcher,
        make_scheduler(settings, ledger),
        recorded.curve,
        workers=settings.concurrency or 2,
        seed=settings.seed,
    ):
        attained.update(ledger.entries[moment.trial])
        cost = moment.cost
    trials = len(ledger.searched)
    print(f"{'simulated':<10} {trials:>5} trials {cost:>9.0f} s  {_percent(attained)}")
    print(f"{recorded.misses} of {trials} recipes had not been run: their nearest neighbours answered")
    return 0


def _percent(attained: Any) -> str:
    value = attained.hypervolume
    return "attained: unknown (no baseline)" if value is None else f"attained {100 * value:.2f}%"


if __name__ == "__main__":
    sys.exit(main())
