"""What is installed on the machines of these tests, and what is looked at on them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pytest
from machines import PATH, Lan, Machine, NoMachines, missing, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]
HOME = "/root/.robustsearch"
SPACE = '''
"""A small network: how many units compete."""
from robustsearch.recipe import LWTA, Attack, Model, Recipe


def suggest(trial, epsilon):
    units = trial.suggest_categorical("units", [2, 4])
    return Recipe(model=Model(depth=10), lwta=LWTA(units=units), attack=Attack(epsilon=epsilon, step=epsilon, steps=1))
'''


@contextmanager
def network(
    folder: Path,
    own: str,
    *,
    addresses: dict[str, str] | None = None,
    shared: dict[str, bytes] | None = None,
    programs: tuple[str, ...] = (),
    modules: tuple[str, ...] = (),
) -> Iterator[Lan]:
    """A network of machines with this project's needs, and the space of `search`; where it cannot be, skips.

    Args:
        folder: where everything is kept.
        own: what this kind of cluster has on a machine, a script of shell.
        addresses: of machines that are there from the beginning, by name.
        shared: files in the folder that all machines share, by path.
        programs: that this kind needs.
        modules: the same, of Python.
    """
    absent = [name for name in programs if not shutil.which(name, path=PATH)]
    if reason := missing() or (f"needs {', '.join(absent)}" if absent else None):
        pytest.skip(reason)
    for name in modules:
        pytest.importorskip(name)
    try:
        lan = Lan(folder, setup=_setup(own), visible=(ROOT,))
        for name, content in ({"small.py": SPACE.encode()} | (shared or {})).items():
            (lan.shared / name).write_bytes(content)
        with lan:
            for name, address in (addresses or {}).items():
                lan.machine(name, address)
            if addresses:
                lan.check()
            yield lan
    except NoMachines as error:
        pytest.skip(str(error))


def _setup(own: str) -> str:
    """The script that a machine boots with: Python, and packages in place of an index, which it cannot reach.

    `own` is what else this kind of cluster has on a machine.
    """
    packages = "\n".join(path for path in sys.path if path.endswith("-packages"))
    site = sysconfig.get_path("purelib", vars={"base": HOME, "platbase": HOME})
    return f"""
{sys.executable} -m venv --without-pip {HOME}
cat > {site}/packages.pth <<'END'
{packages}
END
cat > {HOME}/bin/ray <<'END'
#!{HOME}/bin/python
from ray.scripts.scripts import main
main()
END
cat > {HOME}/bin/pip <<'END'
#!{HOME}/bin/python
from pip._internal.cli.main import main
main()
END
chmod +x {HOME}/bin/ray {HOME}/bin/pip
mkdir -p ~/.config/pip
printf '[global]\\nno-index = true\\nno-build-isolation = false\\nno-deps = true\\n' > ~/.config/pip/pip.conf
echo '. ~/.bashrc' > ~/.profile
touch ~/.bashrc
if [ "$(hostname)" = desk ]; then
    echo 'export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 PATH={HOME}/bin:$PATH' >> ~/.bashrc
    cp /shared/.keys/id ~/.ssh/id_ed25519; chmod 600 ~/.ssh/id_ed25519
fi
{own}
"""


def search(name: str, trials: int, options: str = "", *, storage: str = "/shared/runs", epochs: int = 8) -> str:
    """The command of a small search, which begins or resumes a run where all machines can reach it."""
    return (
        f"python -m robustsearch.run --space /shared/small.py --fraction 0.5 --trials {trials} --epochs {epochs} "
        f"--grace {epochs} --scheduler none --repeats 0 --final-images 0 "
        f"--storage {storage} --name {name} --resume --address auto {options}"
    )


def timeline() -> Callable[[str], None]:
    """What prints a line with the seconds since this call and since the last line; pytest shows them with `-s`."""
    began = last = time.monotonic()

    def note(what: str) -> None:
        nonlocal last
        now = time.monotonic()
        print(f"{now - began:7.1f} s (+{now - last:.1f}): {what}", flush=True)
        last = now

    return note


def hosts(folder: Path, trial: str) -> list[str]:
    """The machines that a trial ran on, in order: TensorBoard's files are named after time and machine."""
    return [path.name.split(".")[4] for path in sorted((folder / "trials" / trial).glob("events.out.tfevents.*"))]


def steps(folder: Path, trial: str) -> list[list[int]]:
    """The epochs that a trial trained, as TensorBoard has them, worker after worker."""
    files = sorted((folder / "trials" / trial).glob("events.out.tfevents.*"))
    return [[scalar.step for scalar in EventAccumulator(str(file)).Reload().Scalars("train/loss")] for file in files]


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind in a run's log, which is one file, or segments in a store."""
    paths = sorted((folder / "events").glob("*.jsonl")) or list(folder.glob("events.jsonl"))
    lines = "".join(path.read_text() for path in paths).splitlines(keepends=True)
    return [event for event in (json.loads(line) for line in lines if line.endswith("\n")) if event["kind"] == kind]


def whole(folder: Path, epochs: int = 8) -> pd.DataFrame:
    """The results of a `search` of two trials, which are whole: each trial came to its end, and has its epochs once."""
    frame = pd.read_parquet(folder / "results")
    assert not frame.duplicated(["trial", "epoch"]).any()
    assert set(frame["trial"]) == {"baseline", "0000", "0001"}
    assert set(frame["state"]) == {"completed"}
    assert frame.groupby("trial")["epoch"].max().eq(epochs).all()
    return frame


def check_resumed(folder: Path, trial: str, epochs: int = 8) -> None:
    """The last worker of a trial went on from its checkpoint, and came to its end."""
    after = steps(folder, trial)[-1]
    assert after[0] > 2
    assert after == list(range(after[0], epochs + 1))


def half_way(folder: Path, host: str) -> list[str]:
    """Trials that have run on this machine alone, have saved two epochs or more, and have not ended."""
    ended = {event["trial"] for event in events(folder, "tell")}
    saved = [path.parent.name for path in folder.glob("trials/*/checkpoint.pt.previous")]
    return [trial for trial in saved if trial not in ended and hosts(folder, trial) == [host]]


@contextmanager
def tunnel(desk: Machine, file: str) -> Iterator[None]:
    """The dashboard of a cluster on this machine's port 8265."""
    with _running(desk.command(f"exec ray dashboard {file}")):
        wait_for("the tunnel", lambda: ":8265" in desk.run("ss -ltn", timeout=20), seconds=90)
        yield


@contextmanager
def submitted(desk: Machine, identity: str, command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A job that is submitted through the tunnel, and followed."""
    line = f"exec ray job submit --address http://127.0.0.1:8265 --submission-id {identity} -- {command}"
    with log.open("w") as out, _running(desk.command(line), out) as process:
        yield process


@contextmanager
def _running(command: list[str], out: IO[str] | int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
