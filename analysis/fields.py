"""The fields of a run's recipes that varied: their values, what kind they are, and where their part is off.

A field of a part that is off has no value (None), and is compared within the trials that have it on. Whether a part is
on is a field of its own, `pni on`: it is no column of the results, but as much a choice as any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robustsearch.results import RECIPE_COLUMNS

MOST_LEVELS = 8
"""A number with more distinct values than these is a scale; otherwise each value is a level, as a name is."""

LOG_ABOVE = 20
"""A scale is logarithmic where its largest value is at least this many times its smallest."""


@dataclass(frozen=True)
class Field:
    """A field of the recipe over the trials of a run."""

    name: str
    values: tuple[Any, ...]
    """One a trial; None where its part is off."""
    levels: tuple[Any, ...] | None
    """The distinct values, ascending; None for a scale."""
    log: bool = False
    """Whether a scale is logarithmic."""
    also: tuple[str, ...] = ()
    """Fields that say the same, in every trial: each value of this one goes with one value of theirs."""

    @property
    def off(self) -> NDArray[np.bool_]:
        """In which trials its part is off, `[trials]`."""
        return np.array([value is None for value in self.values], dtype=bool)

    @property
    def label(self) -> str:
        """Its name, and of how many others that say the same."""
        return f"{self.name} (+{len(self.also)})" if self.also else self.name


def fields(table: pa.Table) -> list[Field]:
    """The fields that differ between the rows of a results table, one row a trial, in the order of the recipe."""
    columns = {name: tuple(table[name].to_pylist()) for name in RECIPE_COLUMNS}
    varied = [field(name, values) for name, values in columns.items() if len(set(values) - {None}) > 1]
    switches = [switch for switch in _switches(columns) if not any(_tells(other, switch) for other in varied)]
    found: list[Field] = []
    for candidate in switches + varied:
        at = next((index for index, other in enumerate(found) if _same(candidate, other)), None)
        if at is None:
            found.append(candidate)
        else:
            found[at] = replace(found[at], also=(*found[at].also, candidate.name))
    order = list(columns)
    return sorted(found, key=lambda one: min(i for i, name in enumerate(order) if _under(name, one.name)))


def field(name: str, values: Sequence[Any]) -> Field:
    """A field of these values; what kind it is follows from them."""
    known = sorted(set(values) - {None})
    if len(known) <= MOST_LEVELS or isinstance(known[0], str):
        return Field(name, tuple(values), tuple(known))
    return Field(name, tuple(values), None, log=known[0] > 0 and known[-1] >= LOG_ABOVE * known[0])


def _switches(columns: dict[str, tuple[Any, ...]]) -> list[Field]:
    """`PART on` for each part, and each field that may be off by itself, where it is on in some trials only.

    It has no value where the part around it is off.
    """

    def on(part: str) -> NDArray[np.bool_]:
        inside = [values for name, values in columns.items() if _under(name, part)]
        return np.array([any(value is not None for value in trial) for trial in zip(*inside, strict=True)], dtype=bool)

    parts = {part: None for name in columns for part in _prefixes(name)}
    found = []
    for part in parts:
        around = part.rpartition(".")[0]
        here = on(part)
        possible = on(around) if around else np.ones_like(here)
        if 0 < here.sum() < possible.sum():
            values = tuple(bool(is_on) if may else None for is_on, may in zip(here, possible, strict=True))
            found.append(Field(f"{part} on", values, (False, True)))
    return found


def _prefixes(name: str) -> list[str]:
    """`lwta`, `lwta.ibp` and `lwta.ibp.alpha` of the last."""
    words = name.split(".")
    return [".".join(words[: count + 1]) for count in range(len(words))]


def _under(name: str, part: str) -> bool:
    """Whether a column is a part, or within it; a switch stands where its part does."""
    part = part.removesuffix(" on")
    return name == part or name.startswith(f"{part}.")


def _tells(field: Field, switch: Field) -> bool:
    """Whether a field with levels decides a switch of another part, as `activation` does that of LWTA."""
    if field.levels is None or _under(field.name, switch.name):
        return False
    pairs = {(value, on) for value, on in zip(field.values, switch.values, strict=True) if on is not None}
    return len(pairs) == len({value for value, _ in pairs})


def _same(one: Field, other: Field) -> bool:
    """Whether two fields of one kind are on in the same trials, and group these alike: a level, or a place in order.

    Levels of one trial each group nothing: any two such fields would be the same, but for their order.
    """
    if (one.levels is None) != (other.levels is None) or (one.off != other.off).any():
        return False
    if one.levels is not None and len(one.levels) < (~one.off).sum():
        pairs = set(zip(one.values, other.values, strict=True))
        return len(pairs) == len(set(one.values)) == len(set(other.values))
    ranks, others = (
        np.unique([value for value in field.values if value is not None], return_inverse=True)[1]
        for field in (one, other)
    )
    return bool((ranks == others).all() or (ranks == others.max() - others).all())
