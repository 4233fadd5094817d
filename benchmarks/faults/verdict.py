"""What a search that was killed again and again has come to: what is lost or doubled, and what it took to go on."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.faults.kills import PROGRAMS, SHARES, Strike
from benchmarks.faults.points import faults
from robustsearch import data
from robustsearch.checkpoint import read as read_checkpoint
from robustsearch.events import read
from robustsearch.runfolder import RunFolder
from robustsearch.search.assemble import plan_of
from robustsearch.search.ledger import Entry, Ledger
from robustsearch.search.settings import Settings
from robustsearch.trial import Trial

NOT_REPEATED = ("latency_p50", "latency_p95", "throughput", "train_s", "eval_s", "latency_s", "engine_build_s", "time")
"""Columns that hold times."""


def verdict(folder: RunFolder, compared: Iterable[str] = ()) -> list[str]:
    """What is wrong with a run that has ended; the trials of these names are trained again, and compared by bits."""
    wrong = faults(folder, Settings(**folder.info()["settings"]))
    ledger = Ledger.of(read(folder.events_file)[0])
    for entry in ledger.entries.values():
        if entry.state == "crashed":
            wrong.append(f"{entry.name} has crashed: {entry.reason}")
    for name in compared:
        wrong += [f"{name} differs without a fault: {what}" for what in differences(folder, ledger.entries[name])]
    return wrong


def most_killed(strikes: Iterable[Strike], number: int) -> list[str]:
    """The trials that went on in another process most often."""
    return [name for name, _ in Counter(name for strike in strikes for name in strike.lost).most_common(number)]


def differences(folder: RunFolder, entry: Entry) -> list[str]:
    """How a trial's rungs differ, by bits, from the same trial without a death: networks, and columns but for times."""
    settings = Settings(**folder.info()["settings"])
    dataset = data.of_settings(asdict(settings))
    torch.set_num_threads(settings.cpus_per_trial)
    trial = Trial(entry.recipe, entry.seed, dataset, plan_of(settings, dataset))
    found = []
    for row in entry.rows:
        while trial.epoch < row["epoch"]:
            trial.advance()
        there, again = read_checkpoint(folder.network(entry.name, trial.epoch))["state"], trial.network.state_dict()
        unequal = [name for name in there.keys() | again.keys() if not torch.equal(there[name], again[name])]
        found += [f"epoch {trial.epoch}: {name}" for name in sorted(unequal)]
        found += [
            f"epoch {trial.epoch}: {name} {row[name]} and {value}"
            for name, value in trial.rows[-1].items()
            if name not in NOT_REPEATED and row[name] != value
        ]
    trial.close()
    return found


def table(strikes: list[Strike]) -> list[str]:
    """Markdown: processes killed by kind, time until the search had recovered, and training that was lost."""
    lines = [
        "| killed | processes | in strikes | s until every trial had saved another epoch: median (least to most), n "
        "| s of a trial's work lost: median (most), n | the driver's exit code |",
        "|---|---|---|---|---|---|",
    ]
    calm = [True, *(strike.recovered is not None for strike in strikes)]  # before each
    for kind in SHARES:
        own = [(strike, was_calm) for strike, was_calm in zip(strikes, calm, strict=False) if strike.kind == kind]
        # After another one, a worker's time is cut short by what had begun before; what was lost is not known then.
        measured = [strike for strike, was_calm in own if was_calm or kind != "worker"]
        times = [strike.recovered for strike in measured if strike.recovered is not None]
        lost = [seconds for strike, was_calm in own if was_calm for seconds in strike.lost.values()]
        codes = Counter(str(strike.code) for strike, _ in own) if kind in PROGRAMS else {}
        lines.append(
            f"| {kind} | {sum(strike.processes for strike, _ in own)} | {len(own)} | {_spread(times)} | {_most(lost)} "
            f"| {', '.join(f'{code} ({number})' for code, number in codes.items())} |"
        )
    return lines


def _spread(values: list[Any]) -> str:
    if not values:
        return ""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}), {len(values)}"


def _most(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({max(values):.1f}), {len(values)}" if values else ""
