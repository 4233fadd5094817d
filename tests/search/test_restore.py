"""A study whose journal is damaged or lost is made again from the event log, as it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from robustsearch import results
from robustsearch.errors import RunError
from robustsearch.events import read
from robustsearch.recipe import Recipe
from robustsearch.runfolder import RunFolder
from robustsearch.search import closing
from robustsearch.search.journal import cut_torn_line
from robustsearch.search.ledger import Ledger
from robustsearch.search.searcher import open_study

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package
from benchmarks.faults.points import SPACE, Death, drive, faults, settings


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunFolder, Any]:
    """A run whose driver died after a while."""
    monkeypatch.setattr("robustsearch.search.spaces.PROBES", 3)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (tmp_path / "two.py").write_text(SPACE)
    folder, chosen = RunFolder(tmp_path / "run"), settings(tmp_path / "two.py", trials=6, sampler="tpe")
    folder.write_info({})
    assert not drive(folder, chosen, Death(75))
    return folder, chosen


def study(folder: RunFolder) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, t.params, t.values, t.user_attrs) for t in open_study(folder).get_trials()]


def without_last_lines(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:-12])


def another_value(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    told = next(number for number, line in enumerate(lines) if '"values":[' in line.decode())
    entry = json.loads(lines[told])
    entry["values"][0] += 0.25
    return b"".join([*lines[:told], json.dumps(entry).encode() + b"\n", *lines[told + 1 :]])


DAMAGE = (
    lambda content: b"",
    lambda content: b"\0" * len(content),
    lambda content: content[: len(content) // 2] + content[len(content) // 2 :].replace(b"op_code", b"op_c?de", 1),
    lambda content: content[: len(content) // 2] + content[len(content) // 2 + 300 :],
    without_last_lines,
    another_value,
)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_is_made_again(interrupted: tuple[RunFolder, Any], damage: Callable[[bytes], bytes]) -> None:
    folder, chosen = interrupted
    before, content = study(folder), folder.study_file.read_bytes()
    asked = sum(event.kind == "ask" for event in read(folder.events_file)[0])
    assert asked > 3
    folder.study_file.write_bytes(damage(content))
    assert drive(folder, chosen, Death())
    assert faults(folder, chosen) == []
    assert study(folder)[:2] == before[:2]
    assert folder.study_file.with_name("journal.log.damaged").exists()


def test_a_whole_journal_is_left_alone_but_for_a_torn_line(interrupted: tuple[RunFolder, Any]) -> None:
    folder, chosen = interrupted
    before = study(folder)
    with folder.study_file.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x"')
    assert study(folder) == before
    assert drive(folder, chosen, Death())
    assert faults(folder, chosen) == []
    assert [path.name for path in folder.study_file.parent.iterdir()] == ["journal.log"]


def test_a_study_that_comes_out_otherwise_is_an_error(
    interrupted: tuple[RunFolder, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, chosen = interrupted
    folder.study_file.unlink()
    with pytest.raises(RunError, match="come out otherwise with Optuna"):
        drive(folder, settings(Path(chosen.space), trials=6, sampler="random"), Death())


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 9000])
def test_what_follows_the_last_whole_line_is_cut_off(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lines"
    for head in (b"", b"a\n", b"a\nbc\n"):
        path.write_bytes(head + b"x" * length)
        cut_torn_line(path)
        assert path.read_bytes() == head


def test_results_that_are_damaged_or_lost_are_written_anew(interrupted: tuple[RunFolder, Any]) -> None:
    folder, _ = interrupted
    before = results.read(folder.results)
    first, second, *_ = sorted(folder.results.glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-100])
    second.unlink()
    with pytest.raises(RunError, match=first.name):
        results.read(folder.results)
    Ledger(folder).close()
    assert results.read(folder.results).equals(before)


@pytest.mark.parametrize("damage", [None, *DAMAGE])
def test_a_complete_run_whose_study_is_damaged_is_not_taken_for_whole(
    damage: Callable[[bytes], bytes] | None, interrupted: tuple[RunFolder, Any]
) -> None:
    folder, chosen = interrupted
    assert drive(folder, chosen, Death())
    assert not closing.is_complete(folder)
    with Ledger(folder) as ledger:
        ledger.log.append("end", kept=closing.kept(folder))
    assert closing.is_complete(folder)
    whole = folder.study_file.read_bytes()
    folder.study_file.write_bytes(whole + b'{"op_code":"of a dashboard"}\n')
    assert closing.is_complete(folder)
    folder.study_file.unlink() if damage is None else folder.study_file.write_bytes(damage(whole))
    assert not closing.is_complete(folder)


def test_rows_keep_the_versions_of_the_driver_that_wrote_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_info({})
    found = []
    for number in ("1.0", "2.0"):
        monkeypatch.setattr("robustsearch.search.ledger.versions", lambda number=number: {"torch": number})
        with Ledger(folder) as ledger:
            ledger.start({})
            ledger.ask(number, "search", Recipe(), 0, 0)
            ledger.report(number, {"epoch": 1, "robust": 0.5, "latency_p50": 1.0})
            ledger.finish(number, "crashed", "a reason", 2)
        found.append(results.read(folder.results).to_pylist())
    assert [(row["trial"], row["versions"]) for row in found[1]] == [
        ("1.0", "torch 1.0"),
        ("1.0", "torch 1.0"),
        ("2.0", "torch 2.0"),
        ("2.0", "torch 2.0"),
    ]


def test_a_lost_description_is_in_the_log(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_info({"name": "run", "settings": {"space": "lwta"}})
    with Ledger(folder) as ledger:
        ledger.start(folder.info())
    for damage in ("", '{"name"', "[]"):
        folder.info_file.write_text(damage)
        assert folder.info() == {"name": "run", "settings": {"space": "lwta"}}
    folder.info_file.unlink()
    folder.write_info(folder.info())
    assert json.loads(folder.info_file.read_text())["settings"] == {"space": "lwta"}
