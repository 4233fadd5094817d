"""The columns of a results table as a page: `python -m analysis.columns > docs/results.md`."""

from __future__ import annotations

import sys

from robustsearch.results import COLUMNS, RECIPE_COLUMNS, SCHEMA, SCHEMA_VERSION

READERS = (
    'pandas.read_parquet("runs/NAME/results")',
    'polars.read_parquet("runs/NAME/results")',
    "duckdb.sql(\"select * from 'runs/NAME/results/*.parquet'\")",
)
"""One line for each library that reads a run."""

INTRODUCTION = f"""\
# The results of a run

`runs/NAME/results` is one tidy table in Parquet: a row for each trial and rung, and one without metrics for each
failure. `runs/NAME/evaluations` has the same columns, and a row for each network that was examined under another
protocol, on another split, or with another gate. One line reads it:

<!-- proved by tests/analysis/test_analysis_columns.py -->
```python
{chr(10).join(READERS)}
```

Schema version {SCHEMA_VERSION}. A null is a value that does not exist: an attack that the protocol does not have, a
part of the recipe that is off. Files of another version are read too: what they lack is null, and what only that
version has is left out, with a warning. Made by `python -m analysis.columns > docs/results.md`.
"""


def markdown() -> str:
    """The page."""
    sections = (
        ("Measured", "", COLUMNS),
        ("Recipe", "The settings of the trial, one column each; `recipe` has them all as JSON.", RECIPE_COLUMNS),
    )
    parts = [INTRODUCTION]
    for heading, words, columns in sections:
        rows = [f"| `{name}` | {SCHEMA.field(name).type} | {_cell(text)} |" for name, (_, text) in columns.items()]
        parts.append("\n".join([f"## {heading}", "", *([words, ""] if words else []), *_HEAD, *rows]) + "\n")
    return "\n".join(parts)


_HEAD = ("| column | type | what, and its unit |", "|---|---|---|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(markdown())
