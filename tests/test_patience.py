"""A disk that is full or read-only for a while (real ones: small tmpfs), under everything that a run writes."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import torch

from robustsearch import checkpoint, patience, results
from robustsearch.errors import StorageError
from robustsearch.events import EventLog, read
from robustsearch.patience import patiently, trouble_in
from robustsearch.runfolder import RunFolder
from robustsearch.search.searcher import open_study


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 kB."""
    if os.geteuid():
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Leave so many bytes of a disk; returns what fills the rest."""
    path = disk / "filling"
    written = subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=4096"], capture_output=True, text=True)
    assert "No space left" in written.stderr
    os.truncate(path, path.stat().st_size - leave)
    return path


def log_of(disk: Path) -> Callable[[], object]:
    log = EventLog(disk / "events.jsonl")
    log.append("start")

    def write() -> None:
        log.append("report", "0000", row={"text": "x" * 9000})
        log.close()
        assert [event.kind for event in read(disk / "events.jsonl")[0]] == ["start", "report"]

    return write


def study_of(disk: Path) -> Callable[[], object]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = RunFolder(disk / "run")
    folder.write_info({})
    study = open_study(folder)
    trial = study.ask()

    def write() -> None:
        trial.set_user_attr("text", "x" * 9000)
        assert open_study(folder).trials[0].user_attrs == {"text": "x" * 9000}

    return write


def checkpoint_of(disk: Path) -> Callable[[], object]:
    checkpoint.write(disk / "a.pt", {"epoch": 1})

    def write() -> None:
        checkpoint.write(disk / "a.pt", {"weights": torch.ones(9000)}, keep=disk / "b.pt")
        assert checkpoint.read(disk / "b.pt") == {"epoch": 1}
        assert checkpoint.read(disk / "a.pt")["weights"].sum() == 9000

    return write


def results_of(disk: Path) -> Callable[[], object]:
    results.write_trial(disk / "results", "0000", [{"trial": "0000", "epoch": 1, "robust": 0.5}])

    def write() -> None:
        rows = [{"trial": "0000", "epoch": epoch, "robust": 0.5} for epoch in (1, 2)]
        results.write_trial(disk / "results", "0000", rows)
        assert results.read(disk / "results")["epoch"].to_pylist() == [1, 2]

    return write


@pytest.mark.parametrize("leave", [0, 4096])
@pytest.mark.parametrize("what", [log_of, study_of, checkpoint_of, results_of])
def test_a_full_disk_is_waited_for(
    disk: Path,
    what: Callable[[Path], Callable[[], object]],
    leave: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0.05)
    write, filling = what(disk), fill(disk, leave)
    relief = threading.Timer(0.2, filling.unlink)
    relief.start()
    write()
    relief.join()
    said = capfd.readouterr().err
    assert "can be written: " in said
    assert "No space left on device" in said
    assert "can be written again" in said


def test_a_read_only_disk_is_waited_for(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0.05)
    write = checkpoint_of(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    relief = threading.Timer(0.2, lambda: subprocess.run(["mount", "-o", "remount,rw", disk], check=True))
    relief.start()
    write()
    relief.join()


def test_what_stays_full_is_given_up_and_what_was_written_is_there(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(disk / "events.jsonl")
    log.append("start")
    fill(disk, 4096)
    monkeypatch.setattr(patience, "PAUSE", 0.05)
    line = b"x" * 9000
    with pytest.raises(StorageError, match=r"must be writable, but was not for 0.2 s: No space left"):
        patiently(lambda: log._write(line), log._path, patience=0.2)
    log.close()
    assert [event.kind for event in read(disk / "events.jsonl")[0]] == ["start"]


def test_another_error_is_raised_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        patiently((tmp_path / "none" / "x").touch, "x")


def test_trouble_is_found_below_what_tune_makes_of_it() -> None:
    def wrapped(inner: Exception) -> Exception:
        try:
            try:
                raise inner
            except Exception:
                raise RuntimeError("Tune says this") from None
        except RuntimeError as error:
            outer = ValueError("and then this")
            outer.__cause__ = error
            return outer

    assert isinstance(trouble_in(wrapped(StorageError("x"))), StorageError)
    full = trouble_in(wrapped(OSError(errno.ENOSPC, "No space left on device", "/disk/file")))
    assert str(full) == "/disk/file must be writable, but is not: No space left on device"
    assert trouble_in(wrapped(OSError(errno.EACCES, "no", "x"))) is None
    assert trouble_in(ValueError()) is None
