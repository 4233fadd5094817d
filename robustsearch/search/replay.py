"""Make the decisions of a run again, from its event log alone, and compare.

The log holds what came from outside (what rungs measured, which trials failed, in which order drivers acted) and what
was decided (which recipe was asked for, which trial was stopped). Replay feeds the first to a fresh searcher and
scheduler, and requires the second to come out equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..events import Event
from .ledger import Ledger
from .listed import ListedSearcher
from .scheduler import RungScheduler
from .searcher import OptunaSearcher
from .simulate import Curve, SimulatedTrial

DECISIONS = ("ask", "stop", "tell", "fail")
Decision = dict[str, Any]
Proposer = OptunaSearcher | ListedSearcher


@dataclass(frozen=True)
class Replayed:
    """What came out."""

    decisions: int
    """How many the log holds."""
    logged: Decision | None = None
    """The first that came out otherwise, as logged; None where the log has no more."""
    made: Decision | None = None
    """The same, as made now."""

    @property
    def equal(self) -> bool:
        """Whether every decision came out as logged."""
        return self.logged is None and self.made is None


def replay(events: Sequence[Event], searcher: Proposer, scheduler: RungScheduler, ledger: Ledger) -> Replayed:
    """Feed the events of a run to a searcher and a scheduler with the run's settings, a new study and a new ledger.

    Of a run that was interrupted, the decision that its last report led to may be missing from the log.
    """
    count = len(_decisions(events))
    checked = seen = 0
    made: list[Decision] = []
    logged: list[Decision] = []
    for group in _results(events):
        first = group[0]
        if first.kind == "ask":
            _skip_ghosts(searcher, first.data["number"])
            searcher.suggest(str(first.trial))
        elif first.kind in ("report", *DECISIONS):
            _deliver(group, searcher, scheduler, ledger)
        logged += _decisions(group)
        made += _decisions(ledger.log.events[seen:])
        seen = len(ledger.log.events)
        while checked < len(logged):
            now = made[checked] if checked < len(made) else None
            if now != logged[checked]:
                return Replayed(count, logged[checked], now)
            checked += 1
    if len(made) > count and events and events[-1].kind == "end":
        return Replayed(count, None, made[count])
    return Replayed(count)


def _results(events: Sequence[Event]) -> list[list[Event]]:
    """Events in groups, each of what one message from a worker brought: its reports, and the end of its trial."""
    groups: list[list[Event]] = [[event] for event in events[:1]]
    for before, event in pairwise(events):
        same = before.trial == event.trial and before.kind == "report"
        if same and event.kind in ("report", "stop", "tell", "fail"):
            groups[-1].append(event)
        else:
            groups.append([event])
    return groups


def _deliver(group: list[Event], searcher: Proposer, scheduler: RungScheduler, ledger: Ledger) -> None:
    name, last = str(group[0].trial), group[-1]
    if name not in ledger.entries:
        return  # the recipe was never asked for here: the comparison says so
    if ledger.entries[name].state != "running":
        return  # a driver died between the report and its decision, which its successor made
    if last.data.get("by") == "worker":
        ledger.finish(name, last.data["state"], last.data["reason"], last.data["epoch"], by="worker")
        return
    rows = [event.data["row"] for event in group if event.kind == "report"]
    ended = last.kind != "report" and last.kind != "tell" and last.data["by"] == "trial"
    result = {
        "rows": rows,
        "epoch": rows[-1]["epoch"] if last.kind == "report" else last.data["epoch"],
        "ended": last.data["state"] if ended else None,
        "reason": last.data["reason"] if ended else None,
    }
    if scheduler.on_trial_result(None, SimulatedTrial(name, {"trial": name}, Curve((), ())), result) == scheduler.STOP:
        searcher.on_trial_complete(name, result)


def _skip_ghosts(searcher: Proposer, number: int | None) -> None:
    """Ask for what a driver asked the study for and died before it could log."""
    while number is not None and searcher.asked < number:
        searcher.give_up(searcher.ask_study().number)


def _decisions(events: Sequence[Event]) -> list[Decision]:
    return [{"kind": event.kind, "trial": event.trial} | event.data for event in events if event.kind in DECISIONS]
