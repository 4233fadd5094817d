"""Imports go one way down the sentence: space -> recipe -> trial -> results -> analysis."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEVELS = {
    0: (
        "errors",
        "fields",
        "recipe",
        "results",
        "events",
        "names",
        "patience",
        "storage",
        "pareto",
        "membership",
        "devices",
        "seeds",
        "runfolder",
        "quiet",
        "native",
        "cli",
        "variants",
        "ablation",
        "__init__",
    ),
    1: ("data", "models", "attacks", "checkpoint"),
    2: ("training", "evaluation", "engines", "latency"),
    3: ("trial", "examine", "portray"),
    4: ("search",),
    5: ("run", "evaluate", "audit", "replay", "examples"),
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names}
FORBIDDEN = {0: {"torch", "ray", "optuna"}, 1: {"ray", "optuna"}, 2: {"ray", "optuna"}, 3: {"ray", "optuna"}}
SOURCES = sorted((ROOT / "robustsearch").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere in it, relative ones resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def level(parts: tuple[str, ...]) -> int:
    return LEVEL[parts[1] if len(parts) > 1 else "__init__"]


def test_every_module_has_a_level() -> None:
    for path in SOURCES:
        level(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = level(path.relative_to(ROOT).with_suffix("").parts)
    for name in imports(path):
        parts = tuple(name.split("."))
        if parts[0] == "robustsearch" and len(parts) > 1 and parts[1] in LEVEL:
            assert level(parts) <= own, f"{path.name} (level {own}) imports {name}"
        assert parts[0] not in FORBIDDEN.get(own, ()), f"{path.name} (level {own}) imports {name}"


@pytest.mark.parametrize("folder", ["search_spaces", "analysis"])
def test_spaces_and_analysis_use_level_0_alone(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        for name in imports(path):
            parts = tuple(name.split("."))
            if parts[0] == "robustsearch" and len(parts) > 1 and parts[1] in LEVEL:
                assert level(parts) == 0, f"{path} imports {name}"
            assert parts[0] not in {"torch", "ray"}, f"{path} imports {name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("robustsearch.run", {"torch", "ray", "optuna", "numpy"}),
        ("robustsearch.audit", {"torch", "ray", "optuna", "numpy"}),
        ("robustsearch.results", {"torch", "ray", "optuna"}),
        ("robustsearch.analysis.pareto", {"torch", "ray", "optuna"}),
        ("robustsearch.ablation.statistics", {"torch", "ray", "optuna"}),
    ],
)
def test_a_light_module_imports_nothing_heavy(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not absent & set(loaded)
