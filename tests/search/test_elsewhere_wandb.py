"""A real search with `--log-to wandb`, offline: what Weights & Biases would be sent, read from what it keeps."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robustsearch import results

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package
from benchmarks.faults.driven import TINY

HEADER, BLOCK, PREFIX = 7, 32768, struct.Struct("<IHB")
"""Bytes before the first record; of a block, which no prefix crosses; a part's checksum, length and kind."""
FULL, LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """The records of a run that was kept offline: protocol buffers in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), HEADER, b""
    while place < len(content):
        room = BLOCK - place % BLOCK
        if room < PREFIX.size:
            place += room
            continue
        _, size, kind = PREFIX.unpack_from(content, place)
        place += PREFIX.size + size
        whole += content[place - size : place]
        if kind in (FULL, LAST):
            yield Record.FromString(whole)
            whole = b""


def logged(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[int]]:
    """Configuration, each step of the history by name, and exit codes of a run."""
    config: dict[str, Any] = {}
    history, exits = [], []
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            update = (record.run.config if kind == "run" else record.config).update
            config |= {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in update}
        elif kind == "history":
            items = record.history.item
            history.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
        elif kind == "exit":
            exits.append(record.exit.exit_code)
    return config, history, exits


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(400)
def test_weights_and_biases_is_told_settings_losses_and_both_objectives(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    (tmp_path / "tiny.py").write_text(TINY)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "robustsearch.run", "--space", "tiny.py", "--name", "logged", "--log-to", "wandb"),
            *("--trials", "2", "--epochs", "2", "--fraction", "0.2", "--repeats", "0", "--final-images", "0"),
        ],
        cwd=tmp_path,
        env=os.environ | {"WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert all("_WandbLoggingActor" in line for line in done.stderr.splitlines())  # a word of Ray's about Tune's actors
    folder = tmp_path / "runs" / "logged"
    rows = {row["trial"]: row for row in results.read(folder / "results").to_pylist()}
    assert rows.keys() == {"baseline", "0000", "0001"}
    found = {}
    for path in (folder / "wandb").glob("offline-run-*/run-*.wandb"):
        config, history, exits = logged(path)
        assert exits == [0]  # finished, not cut off
        found[config["trial"]] = config, history
    assert found.keys() == rows.keys()
    for trial, row in rows.items():
        config, history = found[trial]
        assert config["settings"]["training.lr"] == row["training.lr"]
        assert config["recipe"] == row["recipe"]
        assert [step["epoch"] for step in history] == [1, 2]
        assert all(step["train/loss"] > 0 for step in history)
        for name in ("robust", "latency_p50"):
            assert [step.get(name) for step in history] == [None, row[name]]
