"""The event log: order, durability, damage."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from robustsearch.errors import RunError
from robustsearch.events import EventLog, read


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


@pytest.mark.parametrize("damage", ["torn", "lost", "doubled", "digit", "zeros"])
def test_a_damaged_line_before_the_last_is_an_error_that_names_it(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "events"
    one, two, three = written(path)
    lines = {
        "torn": [one, two[:20], three],
        "lost": [one, three, three.replace('"n": 2', '"n": 3')],
        "doubled": [one, one, two],
        "digit": [one, two.replace("0.1", "0.6"), three],
        "zeros": [one, "\0" * len(two), three],
    }[damage]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match="line 2 of"):
        EventLog(path)


def test_one_flipped_bit_is_mended_wherever_it_is(tmp_path: Path) -> None:
    """Except those that make or unmake an end of line."""
    path = tmp_path / "events"
    written(path)
    whole, (events, _) = path.read_bytes(), read(path)
    first = len(whole.splitlines()[0])
    for bit in range(0, 8 * first, 3):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        if flipped[bit // 8] == 0x0A:
            continue
        path.write_bytes(flipped)
        assert read(path)[0] == events, bit


def test_a_damaged_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "events"
    lines = written(path)
    path.write_text("\n".join([*lines[:2], lines[2].replace("0.2", "0.9")]) + "\n")
    with EventLog(path) as log:
        assert len(log.events) == 2
        log.append("end")
    assert [event.kind for event in read(path)[0]] == ["report", "report", "end"]


def test_the_checksum_is_that_of_zlib_over_the_line_without_it(tmp_path: Path) -> None:
    for line in written(tmp_path / "events"):
        fields = json.loads(line)
        crc = fields.pop("crc")
        assert int(crc, 16) == zlib.crc32(json.dumps(fields).encode())


def test_what_json_cannot_say_exactly_is_refused(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events") as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.append("report", "0000", row={"robust": float("nan")})
