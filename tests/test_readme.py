"""What the README says can be done, can be done."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from robustsearch.search import spaces

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_space_is_a_space(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    path = tmp_path / "my_space.py"
    path.write_text(block)
    space = spaces.find(str(path))
    samples = space.sample(0.1, seed=0)
    assert space.summary == "Learning rate and training epsilon of a WRN-16."
    assert {sample.recipe.model.depth for sample in samples} == {16}
    assert all(0.1 <= sample.recipe.attack.epsilon <= 0.2 for sample in samples)


def test_its_paths_exist() -> None:
    named = set(re.findall(r"`((?:robustsearch|search_spaces|analysis|tests|docs)/[\w./-]*)`", README))
    named |= set(re.findall(r"\]\((docs/[^)]+)\)", README))
    assert len(named) > 8
    assert not [path for path in named if not (ROOT / path).exists()]


def test_its_make_targets_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in set(re.findall(r"^    make ([a-z-]+)", (ROOT / document).read_text(), flags=re.MULTILINE)):
            subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_its_options_are_those_of_the_commands() -> None:
    from robustsearch import audit, evaluate, replay, run

    known = {"--color", "--logdir"}  # of analysis.pareto and of TensorBoard
    for command in (run, evaluate, audit, replay):
        known |= set(re.findall(r"--[a-z-]+", command.parser().format_help()))
    assert set(re.findall(r"--[a-z][a-z-]+", README)) <= known
