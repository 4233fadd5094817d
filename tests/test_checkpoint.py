"""Files of tensors: what is read is what was written, or nothing is."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from robustsearch import checkpoint
from robustsearch.errors import RunError


def state() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(7, 3, generator=generator)
    return {"recipe": "{}", "rows": [{"epoch": 1, "robust": 0.5}], "weights": weights, "order": generator.get_state()}


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path, kept = tmp_path / "trials" / "a.pt", tmp_path / "trials" / "a.pt.previous"
    checkpoint.write(path, {"n": 1}, keep=kept)
    assert not kept.exists()
    checkpoint.write(path, state(), keep=kept)
    assert checkpoint.read(kept) == {"n": 1}
    found = checkpoint.read(path)
    assert found.keys() == state().keys()
    assert found["rows"] == state()["rows"]
    assert all(torch.equal(found[name], state()[name]) for name in ("weights", "order"))
    assert sorted(each.name for each in path.parent.iterdir()) == ["a.pt", "a.pt.previous"]


def test_another_process_that_writes_the_same_file_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cut off from its cluster does, on a shared folder: the last whole one stays, nobody fails."""
    path, kept, sync = tmp_path / "a.pt", tmp_path / "a.pt.previous", os.fsync
    checkpoint.write(path, {"n": 1}, keep=kept)

    def interrupted(file: int) -> None:
        sync(file)
        monkeypatch.setattr(os, "fsync", sync)
        with monkeypatch.context() as other:
            other.setattr(checkpoint, "OWN", "other")
            checkpoint.write(path, {"n": 2}, keep=kept)
            path.rename(kept)  # and is about to write the next

    monkeypatch.setattr(os, "fsync", interrupted)
    checkpoint.write(path, state(), keep=kept)
    assert checkpoint.read(path)["rows"] == state()["rows"]
    assert checkpoint.read(kept) == {"n": 2}


def test_what_the_dead_have_left_is_swept_away(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "a.pt", {"n": 1})
    (tmp_path / ".a.pt.0123abcd.part").write_bytes(b"torn")
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    checkpoint.sweep(tmp_path / "none")


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """What changes nothing: dates and paddings of the zip. Every record is under its CRC."""
    path = tmp_path / "a.pt"
    checkpoint.write(path, state())
    content, chance = path.read_bytes(), Random(0)
    refused = 0
    for position in chance.sample(range(len(content)), 300):
        flipped = bytearray(content)
        flipped[position] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            found = checkpoint.read(path)
        except RunError:
            refused += 1
            continue
        assert (found["recipe"], found["rows"]) == ("{}", state()["rows"]), position
        assert all(torch.equal(found[name], state()[name]) for name in ("weights", "order")), position
    assert refused > 100


@pytest.mark.parametrize("length", [0, 1, 100, -1, -30])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.pt"
    checkpoint.write(path, state())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RunError, match=r"must be (readable|whole)"):
        checkpoint.read(path)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"state": Path("x")}, tmp_path / "a.pt")
    with pytest.raises(RunError, match=r"must be readable.*weights_only|Weights only"):
        checkpoint.read(tmp_path / "a.pt")
