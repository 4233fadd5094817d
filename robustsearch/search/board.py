"""TensorBoard: each trial's scalars, layers and adversarial examples, and its recipe as HParams with both objectives.

A log is bounded, whatever the recipe and the dataset: it has at most `START_BYTES`, `EPOCH_BYTES` an epoch and
`RUNG_BYTES` a rung. Histograms have `EDGES`, so that the width of a layer does not count, and pictures are small.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from robustsearch.analysis.traces import ABOUT, EXAMPLES  # type: ignore[import-not-found]

from ..recipe import Recipe
from ..trial import Portrait

METRICS = ("robust", "latency_p50", "natural", "fgsm", "pgd", "cw")
OTHER = ("latency_p95", "throughput", "blocks_kept", "macs", "parameters")

START_BYTES, EPOCH_BYTES, RUNG_BYTES = 20_000, 1_000, 100_000

EDGES = np.linspace(0, 1, 31)
"""Of every histogram: all that is counted is a probability."""

SIDE = 32
"""Pixels of a picture's longer side, at most; larger ones are thinned out."""


class Board:
    """Writes one trial's log; on resume, what came after `epoch` is replaced."""

    def __init__(self, folder: Path, recipe: Recipe, epoch: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=epoch + 1, flush_secs=10)
        if epoch == 0:
            settings = {name: value for name, value in recipe.flat().items() if value is not None}
            for summary in hparams(settings, {f"objective/{name}": 0.0 for name in METRICS}):  # type: ignore[no-untyped-call]
                self._writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]

    def losses(self, epoch: int, losses: dict[str, float]) -> None:
        """The terms of the training objective in an epoch."""
        for name, value in losses.items():
            self._writer.add_scalar(f"train/{name}", value, epoch)

    def row(self, row: dict[str, Any]) -> None:
        """What was measured at a rung."""
        for group, names in (("objective", METRICS), ("measured", OTHER)):
            for name in names:
                if row[name] is not None:
                    self._writer.add_scalar(f"{group}/{name}", row[name], row["epoch"])

    def layers(self, epoch: int, arrays: dict[str, NDArray[np.float32]]) -> None:
        """What the layers do (`models.inspect.describe`): histograms of probabilities, and scalars."""
        for tag, values in arrays.items():
            if values.ndim:
                self._writer.add_histogram(tag, values, epoch, bins=EDGES)
            else:
                self._writer.add_scalar(tag, float(values), epoch)

    def examples(self, portrait: Portrait, epoch: int, class_names: Sequence[str]) -> None:
        """Adversarial examples as one picture of three rows (`examples_picture`), and in words what they show."""
        self._writer.add_image(EXAMPLES, examples_picture(portrait.clean, portrait.perturbed), epoch)
        seen = np.stack([portrait.labels, *portrait.predicted], axis=1)
        classes = [[class_names[index] for index in image] for image in seen]
        about = {"attack": portrait.attack, "epsilon": portrait.epsilon, "classes": classes}
        self._writer.add_text(ABOUT, json.dumps(about), epoch)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def examples_picture(clean: NDArray[np.float32], perturbed: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture `[C, 3 H', N W']`: a column an image; clean, perturbed, and the difference, whose largest is 0 or 255.

    No difference is mid-grey. Other than one or three channels are averaged into one.
    """
    stride = -(-max(clean.shape[2:]) // SIDE)
    difference = perturbed - clean
    largest = float(np.abs(difference).max()) or 1.0
    rows = np.stack([clean, perturbed, 0.5 + 0.5 * difference / largest])[..., ::stride, ::stride]
    if rows.shape[2] not in (1, 3):
        rows = rows.mean(axis=2, keepdims=True)
    count, images, channels, height, width = rows.shape
    picture = rows.transpose(2, 0, 3, 1, 4).reshape(channels, count * height, images * width)
    pixels: NDArray[np.uint8] = np.rint(255 * picture.clip(0, 1)).astype(np.uint8)
    return pixels
