"""What a trial's TensorBoard log holds, read back: the course of its training, and its adversarial examples.

The log is the only place where a trial leaves these (`robustsearch.search.board` writes it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLES = "examples/clean_perturbed_difference"
"""Tag of the pictures of adversarial examples: three rows, of clean images, the same attacked, and the difference."""

ABOUT = "examples/about"
"""Tag of a text beside them, JSON: `attack`, `epsilon` (pixel units), and of each image the names of its true class and
of those that it was taken for, clean and attacked: `classes`, a list of three names an image.
"""

LOSS = "train/loss"
"""Tag of the mean training objective of an epoch."""


@dataclass(frozen=True)
class Trace:
    """The log of one trial; empty where there is none, or none that can be read."""

    loss: tuple[tuple[int, float], ...]
    """Epoch and mean training objective, nats."""
    examples: dict[int, bytes]
    """Epoch to a picture, as PNG."""
    about: dict[int, dict[str, Any]]
    """Epoch to what `ABOUT` says of the picture; logs of earlier versions do not say it."""


def read(folder: Path) -> Trace:
    """The log in a trial's folder; of a trial that went on after an interruption, the last word on each epoch."""
    loss: dict[int, float] = {}
    examples: dict[int, bytes] = {}
    about: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("*tfevents*")):
        for step, tag, value in _events(path):
            if tag == LOSS:
                loss[step] = float(value.tensor.float_val[0])
            elif tag == EXAMPLES:
                examples[step] = value.tensor.string_val[2]  # behind width and height
            elif tag == f"{ABOUT}/text_summary":  # as its writer names a text
                about[step] = json.loads(value.tensor.string_val[0])
    return Trace(tuple(sorted(loss.items())), examples, about)


def _events(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Step, tag and value of each summary of a log; a torn or damaged end is left out."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader  # slow to import

    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            yield event.step, value.tag, value
