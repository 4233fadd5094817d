"""A clock on the wall may jump: it stamps what is written, and no duration or order follows from it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAMPS = {"events.py": 1, "run.py": 1, "tuner.py": 1}
"""How often the clock on the wall is read, by file: an event's time, a run's default name, a run's creation."""


def test_durations_come_from_monotonic_clocks() -> None:
    seen: dict[str, int] = {}
    for folder in ("robustsearch", "analysis"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func)
                    assert name not in ("time.time", "time.time_ns", "datetime.utcnow", "datetime.today"), path
                    if name == "datetime.now":
                        seen[path.name] = seen.get(path.name, 0) + 1
    assert seen == STAMPS
