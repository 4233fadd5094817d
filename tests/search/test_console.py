"""What a person sees of a search: one line for each rung and each end."""

from __future__ import annotations

import io

from rich.console import Console

from robustsearch.recipe import Recipe
from robustsearch.search.console import Progress
from robustsearch.search.ledger import Ledger
from robustsearch.search.live import Attained


def test_a_line_says_how_far_what_was_measured_and_how_it_ended() -> None:
    out, ended = io.StringIO(), list[int]()
    with Ledger(None) as ledger:
        left = lambda: 3 - len(ledger.entries)  # noqa: E731
        progress = Progress(Console(file=out, width=200), ledger, Attained(ledger), left, 4, ended.append)
        plain = ledger.ask("baseline", "baseline", Recipe(), 0, None)
        progress.changed(plain)
        assert out.getvalue() == "", "a start is no news"
        row = {"epoch": 4, "robust": 0.25, "robust_low": 0.2, "robust_high": 0.301, "latency_p50": 2.0}
        plain.trained = 4  # as the scheduler says after each epoch
        ledger.report("baseline", row)
        progress.changed(plain)
        ledger.finish("baseline", "completed", epoch=4)
        progress.changed(plain)
        lost = ledger.ask("0000", "search", Recipe(), 0, 0)
        ledger.finish("0000", "crashed", "no luck", epoch=1)
        progress.changed(lost)
    rung, end, crash = out.getvalue().splitlines()
    for words in ("  0/3 done", " left  ", "  baseline epoch   4/4  robust 25.0% (20.0% to 30.1%)  2.00 ms"):
        assert words in rung
    assert "  1/3 done" in end
    assert end.endswith(" ms  completed")
    assert "  2/3 done" in crash
    assert crash.endswith("  0000     epoch   1/4  crashed: no luck  attained 0.0%")
    assert ended == [0, 1, 2]
