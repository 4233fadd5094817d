"""The results of a run: one tidy table, one row per trial and rung, as Parquet.

Every trial has one small file, `results/TRIAL.parquet`, replaced as a whole each time a rung is added. So a row can
neither be torn nor doubled, whatever process dies. Its pages carry checksums, which `read` looks at; a damaged file is
written anew from the event log when the run is resumed. Any reader of Parquet folders sees one table:

    pandas.read_parquet("RUN/results")        duckdb: select * from 'RUN/results/*.parquet'

A trial that failed has one more row, without metrics, with its state and reason.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from .errors import RunError
from .names import checked_name
from .patience import patiently
from .recipe import Recipe, field_docs

SCHEMA_VERSION = 1

State = Literal["running", "completed", "stopped", "diverged", "crashed"]
"""State of a trial: still running; all epochs done; stopped, by the scheduler or itself; not finite; an exception."""
FAILED: tuple[State, ...] = ("diverged", "crashed")


def _accuracy(name: str, what: str) -> dict[str, tuple[pa.DataType, str]]:
    return {
        name: (pa.float64(), f"{what}, in [0, 1]"),
        f"{name}_low": (pa.float64(), f"lower end of the 95% interval of `{name}` (Wilson)"),
        f"{name}_high": (pa.float64(), f"upper end of the 95% interval of `{name}` (Wilson)"),
    }


COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "run": (pa.string(), "name of the run"),
    "trial": (pa.string(), "name of the trial within the run; `baseline` is the undefended network"),
    "role": (
        pa.string(),
        "`search` (chosen by the sampler; in an ablation, a row's first seed), `repeat` (its recipe with another "
        "seed) or `baseline`",
    ),
    "epoch": (pa.int32(), "epochs trained when this row was measured"),
    "state": (pa.string(), f"state of the trial: {', '.join(get_args(State))}"),
    "reason": (pa.string(), "why the trial failed or was stopped"),
    "seed": (pa.int64(), "seed from which every generator of the trial derives"),
    "digest": (pa.string(), "digest of the recipe"),
    "recipe": (pa.string(), "the recipe as JSON"),
    **_accuracy("natural", "accuracy on unperturbed images"),
    **_accuracy("fgsm", "accuracy under FGSM through the surrogate (in `report`: through one draw), l_inf"),
    **_accuracy("pgd", "accuracy under PGD through the surrogate (in `report`: through one draw), l_inf"),
    **_accuracy("cw", "accuracy under Carlini-Wagner l_2 within the l_2 budget"),
    **_accuracy("robust", "mean over images of the worst l_inf attack's mean correctness over fresh draws"),
    **_accuracy("robust_l2", "the same for the l_2 attacks"),
    **_accuracy("apgd_ce", "accuracy under Auto-PGD on cross-entropy and all l_inf attacks before it (`full` only)"),
    **_accuracy("apgd_dlr", "accuracy under Auto-PGD on DLR and all l_inf attacks before it (`full` only)"),
    **_accuracy("pgd100", "accuracy under PGD-100 on the margin and all l_inf attacks before it (`full` only)"),
    **_accuracy(
        "transfer", "accuracy under Auto-PGD on the mean network and all l_inf attacks before it (`full` only)"
    ),
    **_accuracy(
        "naive", "accuracy under Auto-PGD on the network's own gradient (in `full`: and all l_inf attacks before it)"
    ),
    **_accuracy("straight", "the same with hard gates straight-through; null where no gate is hard"),
    **_accuracy("apgd_targeted", "accuracy under targeted Auto-PGD and all l_inf attacks before it (`full` only)"),
    **_accuracy("square", "accuracy under Square (black box) and all l_inf attacks before it (`full` only)"),
    **_accuracy("pgd_l2", "accuracy under PGD, l_2 (in `full`: and all l_2 attacks before it; not in `quick`)"),
    **_accuracy("apgd_l2", "accuracy under Auto-PGD, l_2, and all l_2 attacks before it (`full` only)"),
    **_accuracy("certified", "share of images certified right within `epsilon_l2` (protocol `certify` only)"),
    "certified_radius": (pa.float64(), "mean certified l_2 radius, pixel units; an image wrong or abstained on has 0"),
    "certified_abstained": (pa.float64(), "share of images without a certificate, in [0, 1]"),
    "certified_radii": (pa.string(), "certified l_2 radius of each image as JSON, pixel units; 0 as above"),
    "certified_n0": (pa.int32(), "votes that chose the class of an image"),
    "certified_n": (pa.int32(), "votes that bounded its probability"),
    "certified_alpha": (pa.float64(), "probability with which one radius may be wrong"),
    "masked": (pa.bool_(), "a masking check failed; null where none was run"),
    "checks": (pa.string(), "the masking checks as JSON: name, value, threshold, passed, reason"),
    "n": (pa.int32(), "images behind each accuracy"),
    "scoring_draws": (pa.int32(), "fresh predictions over which correctness is averaged per image"),
    "attacked": (pa.float64(), "images attacked, as a share of images x attacks: broken ones are dropped in `full`"),
    "cw_norm": (pa.float64(), "median l_2 norm of the successful CW perturbations; null if none succeeded"),
    "latency_p50": (pa.float64(), "median time of one deployed prediction at batch 1, ms"),
    "latency_p95": (pa.float64(), "95th percentile of the same, ms"),
    "throughput": (pa.float64(), "deployed predictions at batch 128, images/s"),
    "feasible": (pa.bool_(), "within the run's limit on latency p50; null where not timed"),
    "engine": (pa.string(), "engine that ran the timed predictions"),
    "engine_reason": (pa.string(), "why it is not the engine that was asked for; null where it is"),
    "engine_build_s": (pa.float64(), "time to build that engine from the trained network, s"),
    "threads": (pa.int32(), "threads of the timed predictions"),
    "macs": (pa.int64(), "multiply-accumulates of one deployed prediction with all its draws"),
    "parameters": (pa.int64(), "parameters of the deployed network"),
    "blocks_kept": (pa.float64(), "share of LWTA blocks that survive the IBP cut-off; null without IBP"),
    "train_loss": (pa.float64(), "mean training objective of the epoch, nats"),
    "train_s": (pa.float64(), "time spent training so far, s"),
    "eval_s": (pa.float64(), "time spent evaluating so far, s"),
    "checks_s": (pa.float64(), "time spent on the masking checks, s"),
    "latency_s": (pa.float64(), "time spent on latency so far, s"),
    "dataset": (pa.string(), "name of the dataset"),
    "split": (pa.string(), "part of the dataset that was measured: `validation` or `test`"),
    "epsilon": (pa.float64(), "l_inf radius of the evaluation, pixel units of [0, 1]"),
    "epsilon_l2": (pa.float64(), "l_2 budget of the evaluation, pixel units of [0, 1]"),
    "protocol": (pa.string(), "name of the evaluation protocol"),
    "variant": (pa.string(), "gate and draws of an evaluation where they are not the trial's own; else null"),
    "device": (pa.string(), "name of the processor that trained and was timed"),
    "versions": (pa.string(), "versions of Python, robustsearch, torch, ray and optuna"),
    "time": (pa.timestamp("ms", tz="UTC"), "when the row was written"),
}


def _recipe_columns() -> dict[str, tuple[pa.DataType, str]]:
    """One column per recipe field, typed as the field is."""
    arrow = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = {"activation": (pa.string(), "relu or lwta")}
    for name, doc in field_docs().items():
        section: Any = Recipe
        may_be_off = False
        *parents, leaf = name.split(".")
        for parent in parents:
            hint = get_type_hints(section)[parent]
            may_be_off |= type(None) in get_args(hint)
            section = next((kind for kind in get_args(hint) if kind is not type(None)), hint)
        hint = get_type_hints(section)[leaf]
        kind = next((kind for kind in get_args(hint) if kind in arrow), hint)
        columns[name] = (arrow.get(kind, pa.string()), doc + " Null where that part is off." * may_be_off)
    return columns


def _names_checksum(names: Iterable[str]) -> str:
    """Of the names of columns, which the checksums of a Parquet file's pages leave open."""
    return str(zlib.crc32("\n".join(names).encode()))


RECIPE_COLUMNS = _recipe_columns()
"""Flattened recipe: dotted field name to Arrow type and documentation."""

SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={"doc": doc}) for name, (kind, doc) in (COLUMNS | RECIPE_COLUMNS).items()],
    metadata={
        "robustsearch_schema": str(SCHEMA_VERSION),
        "robustsearch_names": _names_checksum([*COLUMNS, *RECIPE_COLUMNS]),
    },
)


def write_trial(folder: Path, trial: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write all rows of one trial as `folder/TRIAL.parquet`, replacing the file in one atomic step.

    Rows are keyed by epoch: of two with the same epoch, and either both or neither with metrics, the last wins.

    Raises:
        KeyError: a row has a name that is no column.
    """
    keyed: dict[tuple[int, bool], dict[str, Any]] = {}
    for row in rows:
        if unknown := row.keys() - set(SCHEMA.names):
            raise KeyError(f"not columns of the results: {', '.join(sorted(unknown))}")
        keyed[row["epoch"], row.get("robust") is None] = {name: row.get(name) for name in SCHEMA.names}
    table = pa.Table.from_pylist([keyed[key] for key in sorted(keyed)], schema=SCHEMA)
    return _write(folder, trial, table)


def write_evaluation(folder: Path, row: Mapping[str, Any]) -> Path:
    """Write what an examination of one network found, in place of one of the same name (`evaluation_name`)."""
    table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names}], schema=SCHEMA)
    name = evaluation_name(row["trial"], row["epoch"], row["protocol"], row["split"], row.get("variant"))
    return _write(folder, name, table)


def evaluation_name(trial: str, epoch: int, protocol: str, split: str, variant: str | None = None) -> str:
    """Name of an evaluation's file, without its ending."""
    return f"{trial}-{epoch:04d}-{protocol}-{split}" + (f"-{variant}" if variant else "")


def with_verdicts(table: pa.Table, evaluations: pa.Table) -> pa.Table:
    """The rows of `results/`, `masked` where they or any evaluation of the same trial and epoch say so.

    An evaluation of a variant speaks for itself alone: its gate is not the trial's.
    """
    verdicts: dict[tuple[str, int], bool] = {}
    for source in (table, evaluations):
        for row in source.select(["trial", "epoch", "masked", "variant"]).to_pylist():
            if row["masked"] is not None and row["variant"] is None:
                key = row["trial"], row["epoch"]
                verdicts[key] = verdicts.get(key, False) or row["masked"]
    keys = zip(table["trial"].to_pylist(), table["epoch"].to_pylist(), strict=True)
    masked = pa.array([verdicts.get(key) for key in keys], type=pa.bool_())
    return table.set_column(SCHEMA.names.index("masked"), SCHEMA.field("masked"), masked)


def _write(folder: Path, name: str, table: pa.Table) -> Path:
    checked_name(name, "a file of results")
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / f"{name}.parquet", folder / f".{name}.part"

    def write() -> None:
        # For a few rows of many columns this is smaller than zstd with dictionaries, and written in half the time.
        pq.write_table(table, part, compression="snappy", use_dictionary=False, write_page_checksum=True)
        os.replace(part, path)

    patiently(write, path)
    return path


def read(folder: Path) -> pa.Table:
    """The whole table below a run's `results/`, sorted by trial and epoch; an empty one where there is none.

    Raises:
        RunError: a file is damaged.
    """
    return read_files(sorted(folder.glob("*.parquet")))


def read_files(files: Sequence[Path]) -> pa.Table:
    """The same of these files alone.

    A column that a file of another version lacks is null there; one that only that version has is left out, with a
    warning.
    """
    if not files:
        return SCHEMA.empty_table()
    try:
        table = _read(files)
    except (OSError, ValueError, pa.ArrowException) as error:
        damaged, reason = next((path for path in files if not is_whole(path)), files[0]), str(error).partition("\n")[0]
        raise RunError(f"results must be Parquet files of robustsearch, but {damaged} is not: {reason}") from error
    return table.sort_by([("trial", "ascending"), ("epoch", "ascending")])


def is_whole(path: Path) -> bool:
    """Whether a file of rows is there and undamaged."""
    try:
        _read([path])
    except (OSError, ValueError, pa.ArrowException):
        return False
    return True


def _read(paths: Sequence[Path]) -> pa.Table:
    """The rows of files, whose pages and names of columns have checksums."""
    checked = pa.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
    parquet = pa.dataset.ParquetFileFormat(default_fragment_scan_options=checked)
    files = pa.dataset.dataset([str(path) for path in paths], schema=SCHEMA, format=parquet)
    for file in files.get_fragments():
        found = file.physical_schema
        if unknown := ", ".join(name for name in found.names if name not in SCHEMA.names):
            if (found.metadata or {}).get(b"robustsearch_names") != _names_checksum(found.names).encode():
                raise pa.ArrowInvalid(f"not a column of the results: {unknown}")
            warnings.warn(f"{file.path} is of another version of robustsearch; left out: {unknown}")
    return files.to_table()
