"""What the scheduler compares a trial with."""

from __future__ import annotations

import pytest

from robustsearch.recipe import Recipe
from robustsearch.search import scheduler as module
from robustsearch.search.ledger import Ledger
from robustsearch.search.scheduler import RungScheduler
from robustsearch.search.simulate import Curve, SimulatedTrial


def test_only_the_newest_records_of_a_rung_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight at most: a trial that is better than the last seven goes on, whatever was there before them."""
    monkeypatch.setattr(module, "COMPARED", 8)
    ledger = Ledger(None)
    scheduler = RungScheduler(ledger, eta=4, changed=lambda entry: None)

    def report(number: int, robust: float) -> str:
        name = f"{number:04d}"
        ledger.ask(name, "search", Recipe(), 0, None)
        row = {"epoch": 6, "robust": robust, "latency_p50": 2.0, "n": 10**6}
        trial = SimulatedTrial(name, {"trial": name}, Curve((), ()))
        return scheduler.on_trial_result(None, trial, {"rows": [row], "epoch": 6, "ended": None, "reason": None})

    for number in range(6):
        report(number, 0.9)
    assert report(6, 0.7) == scheduler.STOP
    for number in range(7, 13):
        assert report(number, 0.6) == scheduler.STOP
    assert report(13, 0.65) == scheduler.CONTINUE
    assert report(14, 0.5) == scheduler.STOP


def test_a_decision_that_a_dead_driver_left_open_is_made_among_the_records_of_its_device() -> None:
    """Nine trials that none dominates; the last adds the most, its driver dies on its report, and it must go on."""
    ledger = Ledger(None)
    points = [(0.50 + 0.001 * number, 2.0 * 1.2**number) for number in range(8)] + [(0.99, 20.0)]
    for number, (robust, latency) in enumerate(points):
        name = f"{number:04d}"
        ledger.ask(name, "search", Recipe(), 0, None)
        row = {"epoch": 6, "robust": robust, "latency_p50": latency, "n": 10**6, "device": "a processor"}
        ledger.report(name, row)
    RungScheduler(ledger, eta=2, changed=lambda entry: None)
    assert ledger.entries["0008"].state == "running"
