"""What docs/first-hour.md says of the machine is true: each fault that can be made here is, and has that answer."""

from __future__ import annotations

import functools
import http.server
import importlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pydantic
import pytest

from .test_docs_mistakes import PAGE

ROOT = PAGE.parents[1]
ROWS = dict(re.findall(r"^\| ([^|`]+?) \| [^|]+ \| ([^|]+) \|$", PAGE.read_text().partition("## The machine")[2], re.M))


def asked(*command: str | Path, folder: Path = ROOT, **environment: str) -> tuple[int, str]:
    """Exit code and errors of a command, started in a folder, with a changed environment."""
    changed = os.environ | environment
    done = subprocess.run(command, cwd=folder, env=changed, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stderr


def older_python() -> str:
    """An interpreter of before 3.11."""
    return found_older_python() or pytest.skip("there is no Python of before 3.11 here")


@functools.cache
def found_older_python() -> str | None:
    """The same, itself and not what may stand in the path for it; None where there is none."""
    for minor in (10, 9, 8):
        python = shutil.which(f"python3.{minor}")
        if python:
            itself = [python, "-c", "import sys; print(sys.executable)"]
            found = subprocess.run(itself, capture_output=True, text=True)
            if not found.returncode:
                return found.stdout.strip()
    return None


def with_an_older_python(_: Path) -> tuple[int, str]:
    return asked(older_python(), "-B", "-m", "robustsearch.run", "--space", "lwta")


def make_with_an_older_python(folder: Path) -> tuple[int, str]:
    return asked("make", "install", f"PYTHON={older_python()}", f"VENV={folder / 'venv'}")


def make_with_a_python_that_is_not_there(folder: Path) -> tuple[int, str]:
    return asked("make", "install", "PYTHON=python3.99", f"VENV={folder / 'venv'}")


def make_in_another_folder(folder: Path) -> tuple[int, str]:
    return asked("make", "run", folder=folder)


def without_the_environment(_: Path) -> tuple[int, str]:
    return asked(sys.executable, "-S", "-B", "-m", "robustsearch.run", "--space", "lwta")


def packages_without_robustsearch(_: Path) -> tuple[int, str]:
    packages = str(Path(pydantic.__file__).parents[1])  # without -S, Python would find there what was installed by `-e`
    return asked(sys.executable, "-S", "-B", "-m", "robustsearch.run", "--space", "lwta", PYTHONPATH=packages)


def figures_without_the_environment(_: Path) -> tuple[int, str]:
    return asked(sys.executable, "-S", "-B", "-m", "analysis.pareto", "runs/nothing")


def analysis_in_another_folder(folder: Path) -> tuple[int, str]:
    return asked(sys.executable, "-m", "analysis.pareto", "runs/nothing", folder=folder)


def run(*given: str | Path) -> tuple[int, str]:
    """A search in this process, which has imported everything."""
    code = importlib.import_module("robustsearch.run").main(["--space", "lwta", *map(str, given)])
    return code, ""


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A disk of its own, mounted for as long as it is needed."""
    place = folder / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def storage_that_is_full(folder: Path) -> tuple[int, str]:
    with disk(folder, "size=1m") as storage:
        return run("--storage", storage)


def storage_that_is_read_only(folder: Path) -> tuple[int, str]:
    with disk(folder, "ro") as storage:
        return run("--storage", storage)


def data_that_cannot_be_written(folder: Path) -> tuple[int, str]:
    with disk(folder, "ro") as storage:
        return run("--dataset", "cifar10", "--data-dir", storage)


def temporary_files_without_room(folder: Path) -> tuple[int, str]:
    with disk(folder, "size=1m") as place, patch.dict(os.environ, TMPDIR=str(place)):
        return run("--storage", folder / "runs")


def temporary_files_that_cannot_be_written(folder: Path) -> tuple[int, str]:
    with disk(folder, "ro") as place, patch.dict(os.environ, TMPDIR=str(place)):
        return run("--storage", folder / "runs")


def less_memory_than_a_search_takes(folder: Path) -> tuple[int, str]:
    """In a control group of its own, of either version."""
    root = Path("/sys/fs/cgroup")
    old = root / "memory"
    group = (old if old.is_dir() else root) / f"robustsearch-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(str(900 * 2**20))
    except OSError as error:
        pytest.skip(f"memory cannot be limited here: {error}")
    try:
        command = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -m robustsearch.run --space lwta"
        return asked("bash", "-c", command, folder=folder)
    finally:
        group.rmdir()


def another_server_at_the_address(folder: Path) -> tuple[int, str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        return run("--storage", folder / "runs", "--address", f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


FAULTS: dict[str, tuple[Callable[[Path], tuple[int, str]], int]] = {
    "a Python of before 3.11": (with_an_older_python, 2),
    "one for the environment": (make_with_an_older_python, 2),
    "a Python that is not there": (make_with_a_python_that_is_not_there, 2),
    "the environment is not active": (without_the_environment, 2),
    "the packages alone are installed": (packages_without_robustsearch, 2),
    "nor for the figures": (figures_without_the_environment, 2),
    "make in another folder": (make_in_another_folder, 2),
    "the figures from another folder": (analysis_in_another_folder, 1),
    "no space left": (storage_that_is_full, 2),
    "a disk that is read-only": (storage_that_is_read_only, 2),
    "a dataset on a disk that is read-only": (data_that_cannot_be_written, 2),
    "no room for temporary files": (temporary_files_without_room, 2),
    "temporary files on a disk that is read-only": (temporary_files_that_cannot_be_written, 2),
    "too little memory": (less_memory_than_a_search_takes, 2),
    "a port with another server": (another_server_at_the_address, 2),
}
"""Each row that is made here, and its exit code."""


SLOW = {"too little memory"}


@pytest.mark.parametrize("label", [pytest.param(each, marks=[pytest.mark.slow] * (each in SLOW)) for each in FAULTS])
def test_a_fault_has_the_answer_of_the_page(
    label: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):  # of `make test`, where that runs this
        monkeypatch.delenv(name, raising=False)
    make, expected = FAULTS[label]
    code, said = make(tmp_path)
    assert code == expected
    said += capsys.readouterr().err
    pattern = ".*".join(re.escape(part) for part in ROWS[label].split("…"))
    assert re.search(pattern, said), f"{said}\nlacks: {ROWS[label]}"
