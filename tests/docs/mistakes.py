"""A workplace in which the mistakes of docs/first-hour.md can be made."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

HEAD = '"""Wrong."""\nfrom robustsearch.recipe import *\n'
SUGGEST = HEAD + "def suggest(trial, epsilon):\n    return "
SPACES = {
    "half_a_mix.py": SUGGEST + "Recipe(mix=Mix(clean=1))",
    "three_units.py": SUGGEST + "Recipe(lwta=LWTA(units=3))",
    "epsilon_8.py": SUGGEST + "Recipe(attack=Attack(epsilon=8, step=2))",
    "short_pgd.py": SUGGEST + "Recipe(attack=Attack(epsilon=0.3, step=0.01, steps=3))",
    "depth_33.py": SUGGEST + "Recipe(model=Model(depth=33))",
    "dict.py": SUGGEST + "dict(depth=34)",
    "typo.py": SUGGEST + "Recipe(modle=Model())",
    "syntax.py": HEAD + "def suggest(trial, epsilon) return Recipe()",
    "no_suggest.py": HEAD + "recipe = Recipe()",
}
MODULE = """
import torch
from torch import nn
number = 3
def build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
def three(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
def nothing(): return None
"""


def make(folder: Path) -> None:
    """Fill the folder."""
    for name, text in SPACES.items():
        (folder / name).write_text(text)
    (folder / "mynet.py").write_text(MODULE)
    (folder / "a-file").touch()
    y = np.arange(40) % 4
    x = np.zeros((40, 8, 8, 1), np.uint8)
    arrays = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    np.savez(folder / "float.npz", **arrays | {"x_train": x.astype(np.float32)})
    np.savez(folder / "channels_first.npz", **arrays | {"x_train": x.transpose(0, 3, 1, 2)})
    np.savez(folder / "from_one.npz", **arrays | {"y_train": y + 1})
    np.savez(folder / "no_test.npz", x_train=x, y_train=y)
    np.savez(folder / "tiny.npz", **arrays)
    whole = (folder / "tiny.npz").read_bytes()
    (folder / "half.npz").write_bytes(whole[: len(whole) // 2])
    batches = folder / "half" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(b"\x80\x02}q\x01")
    torch.save({"weight": Fraction(1, 3)}, folder / "pickle.pt")
    torch.save({"0.weight": torch.zeros(2)}, folder / "other.pt")
    (folder / "runs" / "taken").mkdir(parents=True)
    (folder / "runs" / "taken" / "run.json").write_text(json.dumps({"name": "taken", "settings": {}}))
    (folder / "runs" / "torn").mkdir()
    (folder / "runs" / "torn" / "run.json").write_text('{"name": "to')
