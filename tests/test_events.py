"""The event log: order, durability, damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustsearch.errors import RunError
from robustsearch.events import EventLog


def written(path: Path, count: int = 3) -> list[str]:
    with EventLog(path) as log:
        for number in range(count):
            log.append("report", f"{number:04d}", row={"robust": number / 10})
    return path.read_text().splitlines()


def test_events_come_back_in_order_with_their_data(tmp_path: Path) -> None:
    written(tmp_path / "events")
    with EventLog(tmp_path / "events") as log:
        assert [event.n for event in log.events] == [0, 1, 2]
        assert [event.data["row"]["robust"] for event in log.of("report")] == [0.0, 0.1, 0.2]
        assert log.of("ask") == []


@pytest.mark.parametrize("kept", range(1, 40, 7))
def test_a_torn_last_line_is_dropped_and_overwritten(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "events"
    lines = written(path)
    path.write_text("\n".join(lines[:2]) + "\n" + lines[2][:kept])
    with EventLog(path) as log:
        assert len(log.events) == 2
        assert log.append("end").n == 2
    with EventLog(path) as log:
        assert [event.kind for event in log.events] == ["report", "report", "end"]


def test_a_damaged_line_before_the_last_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "events"
    lines = written(path)
    path.write_text("\n".join([lines[0], lines[1][:20], lines[2]]) + "\n")
    with pytest.raises(RunError, match="line 2 of"):
        EventLog(path)


def test_what_json_cannot_say_exactly_is_refused(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events") as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.append("report", "0000", row={"robust": float("nan")})
