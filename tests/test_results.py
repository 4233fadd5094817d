"""The results table: what goes in comes out, whatever was there before and whoever reads it."""

from __future__ import annotations

import datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustsearch import results
from robustsearch.errors import RunError
from robustsearch.recipe import Recipe, field_docs
from robustsearch.results import SCHEMA, read, with_verdicts, write_evaluation, write_trial

RECIPES = [
    Recipe(),
    Recipe.of({"lwta": {"gate": "noisy", "gate_noise": 0.5, "ibp": {}}, "pni": {}, "smoothing": {}, "draws": 4}),
    Recipe.of({"training": {"optimizer": "adamw", "augment": False}, "attack": {"norm": "l2", "epsilon": 0.1}}),
    Recipe.of(
        {
            "mix": {"clean": 0, "noise": 0, "fgsm": 0, "pgd": 1, "cw": 0},
            "training": {"trades": 6.0, "awp": 0.005, "patience": 3},
        }
    ),
]


def read_rows(folder: Path, trial: str) -> list[dict[str, Any]]:
    return [row for row in read(folder).to_pylist() if row["trial"] == trial]


def measured(trial: str = "0001", epoch: int = 1, robust: float = 0.5, **fields: Any) -> dict[str, Any]:
    recipe = RECIPES[0]
    return {
        "trial": trial,
        "role": "search",
        "epoch": epoch,
        "state": "running",
        "digest": recipe.digest,
        "recipe": recipe.to_json(),
        **recipe.flat(),
        "robust": robust,
        "latency_p50": 1.5,
        "n": 400,
        "masked": False,
        "time": datetime.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=datetime.UTC),
        **fields,
    }


def failed(trial: str = "0001", epoch: int = 1) -> dict[str, Any]:
    return {"trial": trial, "role": "search", "epoch": epoch, "state": "crashed", "reason": "out of memory"}


def filled(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is read: every column, null where nothing was written."""
    return {name: row.get(name) for name in SCHEMA.names}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_row_comes_back_as_it_was_written(tmp_path: Path, recipe: Recipe) -> None:
    row = measured(digest=recipe.digest, recipe=recipe.to_json(), **recipe.flat())
    path = write_trial(tmp_path / "results", "0001", [row])
    assert path == tmp_path / "results" / "0001.parquet"
    (found,) = read_rows(tmp_path / "results", "0001")
    assert found == filled(row)
    assert Recipe.from_json(found["recipe"]) == recipe
    assert {name: found[name] for name in recipe.flat()} == recipe.flat()


def test_numbers_of_numpy_come_back_as_plain_ones(tmp_path: Path) -> None:
    write_trial(tmp_path, "0001", [measured(robust=np.float64(0.25), n=np.int64(3), masked=np.bool_(True))])
    (row,) = read_rows(tmp_path, "0001")
    assert (row["robust"], row["n"], row["masked"]) == (0.25, 3, True)


def test_of_two_rows_with_one_epoch_the_last_wins(tmp_path: Path) -> None:
    write_trial(tmp_path, "0001", [measured(epoch=2, robust=0.1), measured(epoch=1), measured(epoch=2, robust=0.2)])
    assert [(row["epoch"], row["robust"]) for row in read_rows(tmp_path, "0001")] == [(1, 0.5), (2, 0.2)]


def test_a_failure_stands_beside_the_measurement_of_its_epoch(tmp_path: Path) -> None:
    write_trial(tmp_path, "0001", [failed(epoch=2), measured(epoch=2), failed(epoch=2), measured(epoch=1)])
    found = [(row["epoch"], row["state"], row["robust"]) for row in read_rows(tmp_path, "0001")]
    assert found == [(1, "running", 0.5), (2, "running", 0.5), (2, "crashed", None)]


def test_writing_again_replaces_the_file(tmp_path: Path) -> None:
    write_trial(tmp_path, "0001", [measured(epoch=1), measured(epoch=2)])
    write_trial(tmp_path, "0001", [measured(epoch=3)])
    assert [row["epoch"] for row in read_rows(tmp_path, "0001")] == [3]
    assert [path.name for path in tmp_path.iterdir()] == ["0001.parquet"]


def test_a_write_that_dies_leaves_the_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_trial(tmp_path, "0001", [measured(epoch=1)])

    def die_halfway(_: pa.Table, where: Path, **__: Any) -> None:
        where.write_bytes(b"PAR1 torn")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results.pq, "write_table", die_halfway)
        with pytest.raises(KeyboardInterrupt):
            write_trial(tmp_path, "0001", [measured(epoch=1), measured(epoch=2)])
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".0001.part", "0001.parquet"]
    assert [row["epoch"] for row in read_rows(tmp_path, "0001")] == [1]
    assert read(tmp_path)["epoch"].to_pylist() == [1]
    assert len(pd.read_parquet(tmp_path)) == 1
    write_trial(tmp_path, "0001", [measured(epoch=1), measured(epoch=2)])
    assert [path.name for path in tmp_path.iterdir()] == ["0001.parquet"]
    assert read(tmp_path)["epoch"].to_pylist() == [1, 2]


def test_an_unknown_column_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="not columns of the results: lr, robustness"):
        write_trial(tmp_path / "results", "0001", [measured(), measured(robustness=0.5, lr=0.1)])
    assert not (tmp_path / "results").exists()


def test_a_run_without_results_is_an_empty_table(tmp_path: Path) -> None:
    table = read(tmp_path / "results")
    assert table.num_rows == 0
    assert table.schema == SCHEMA
    assert read_rows(tmp_path / "results", "0001") == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three trials, written in no order; all metrics of one are null, so that types must come from the schema."""
    write_trial(tmp_path, "0010", [measured("0010", epoch=3), measured("0010", epoch=1)])
    write_trial(tmp_path, "0002", [failed("0002", epoch=0)])
    write_trial(tmp_path, "baseline", [measured("baseline", epoch=3, role="baseline")])
    return tmp_path


def test_the_table_is_sorted_by_trial_and_epoch(folder: Path) -> None:
    table = read(folder)
    keys = list(zip(table["trial"].to_pylist(), table["epoch"].to_pylist(), strict=True))
    assert keys == [("0002", 0), ("0010", 1), ("0010", 3), ("baseline", 3)]
    assert table.schema == SCHEMA


def test_pandas_reads_the_folder_as_the_same_rows(folder: Path) -> None:
    ours = read(folder).to_pandas()
    theirs = pd.read_parquet(folder).sort_values(["trial", "epoch"], ignore_index=True)
    assert list(theirs.columns) == SCHEMA.names
    pd.testing.assert_frame_equal(theirs, ours)


def test_a_file_of_an_older_schema_is_read_with_nulls(folder: Path) -> None:
    old = read(folder).slice(1, 1).drop_columns(["masked", "lwta.units"])
    pq.write_table(old.set_column(0, "run", pa.array(["old"])), folder / "0003.parquet")
    row = read(folder).filter(pa.compute.equal(read(folder)["run"], "old")).to_pylist()[0]
    assert row["masked"] is None
    assert row["lwta.units"] is None
    assert row["robust"] == 0.5


def test_a_file_of_a_newer_schema_is_read_without_what_is_new_and_that_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [*SCHEMA.names, "flux"]
    metadata = {b"robustsearch_names": results._names_checksum(names).encode()}
    newer = pa.schema([*SCHEMA, pa.field("flux", pa.float64())], metadata=metadata)
    with monkeypatch.context() as patch:
        patch.setattr(results, "SCHEMA", newer)
        write_trial(folder, "0004", [measured("0004", epoch=3, flux=1.5)])
    with pytest.warns(UserWarning, match=r"0004\.parquet is of another version of robustsearch; left out: flux"):
        table = read(folder)
    assert table.schema == SCHEMA
    assert [row["robust"] for row in table.to_pylist() if row["trial"] == "0004"] == [0.5]


def test_every_column_is_documented_in_the_file_too(folder: Path) -> None:
    schema = pq.read_schema(folder / "0010.parquet")
    assert schema.metadata[b"robustsearch_schema"] == str(results.SCHEMA_VERSION).encode()
    for field in schema:
        assert len(field.metadata[b"doc"]) >= 8, field.name


def test_every_field_of_a_recipe_has_a_column_of_its_type() -> None:
    assert set(results.RECIPE_COLUMNS) == {"activation", *field_docs()}
    kinds = {int: pa.types.is_integer, float: pa.types.is_floating, bool: pa.types.is_boolean, str: pa.types.is_string}
    seen: set[str] = set()
    for recipe in RECIPES:
        for name, value in recipe.flat().items():
            if value is not None:
                assert kinds[type(value)](SCHEMA.field(name).type), name
                seen.add(name)
    assert seen == set(results.RECIPE_COLUMNS)


def test_a_verdict_of_any_evaluation_marks_its_trial_and_epoch(tmp_path: Path) -> None:
    write_trial(tmp_path / "results", "0001", [{"trial": "0001", "epoch": epoch, "robust": 0.5} for epoch in (1, 2, 4)])
    found = {(1, "validation"): False, (2, "validation"): False, (2, "test"): True}
    for (epoch, split), masked in found.items():
        row = {"trial": "0001", "epoch": epoch, "protocol": "full", "split": split, "masked": masked}
        write_evaluation(tmp_path / "evaluations", row)
    table = with_verdicts(read(tmp_path / "results"), read(tmp_path / "evaluations"))
    assert table.schema.names == SCHEMA.names
    assert [(row["epoch"], row["masked"]) for row in table.to_pylist()] == [(1, False), (2, True), (4, None)]
    assert with_verdicts(table, SCHEMA.empty_table()).equals(table)


@pytest.mark.slow
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = write_trial(tmp_path, "0001", [measured(epoch=1), measured(epoch=2, robust=0.25), failed(epoch=2)])
    whole, content, chance = read(tmp_path), path.read_bytes(), Random(0)
    refused = 0
    for position in chance.sample(range(len(content)), 150):
        flipped = bytearray(content)
        flipped[position] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        if not results.is_whole(path):
            refused += 1
            with pytest.raises(RunError, match=r"0001\.parquet is not"):
                read(tmp_path)
        else:
            assert read(tmp_path).equals(whole), position
    assert refused > 50


def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    write_trial(tmp_path, "0000", [measured(trial="0000")])
    path = write_trial(tmp_path, "0001", [measured()])
    content = path.read_bytes()
    for length in (0, 4, 1000, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(RunError, match=r"0001\.parquet is not"):
            read(tmp_path)
