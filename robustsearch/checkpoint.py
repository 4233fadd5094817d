"""Files of tensors, written in one atomic step and read only where they are whole.

`torch.save` writes a zip with a CRC-32 for each record, which `torch.load` does not look at: a flipped bit would become
a weight. So they are checked here. Nothing that a file holds is ever run (`weights_only`).
"""

from __future__ import annotations

import io
import os
import uuid
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from .errors import RunError
from .patience import patiently

OWN = uuid.uuid4().hex[:8]
"""Of this process: one that was cut off from its cluster may be writing the same file as the one that took over."""


def write(path: Path, state: dict[str, Any], keep: Path | None = None) -> None:
    """`torch.save` in one atomic step; what was at `path` before is moved to `keep`.

    Raises:
        StorageError: the disk could not be written for long; what was at `path` is still there.
    """
    patiently(lambda: _write(path, state, keep), path)


def _write(path: Path, state: dict[str, Any], keep: Path | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{OWN}.part")
    content = io.BytesIO()  # torch turns an OSError of the file's into an error without a number
    torch.save(state, content)
    with part.open("wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    if keep:
        with suppress(FileNotFoundError):
            os.replace(path, keep)
    os.replace(part, path)


def sweep(folder: Path) -> None:
    """Remove what processes that died while they wrote have left in a folder, which is this process's from now on."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def read(path: Path) -> Any:
    """What a file holds, on the CPU.

    Raises:
        RunError: it is absent, damaged or holds more than tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as records:
            if (damaged := records.testzip()) is not None:
                raise RunError(f"{path} must be whole, but its record {damaged} is not what was written")
        return torch.load(path, weights_only=True, map_location="cpu")
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        UnpicklingError,
        zipfile.BadZipFile,
        zlib.error,
    ) as e:
        if isinstance(e, RunError):
            raise
        reason = str(e).partition("\n")[0]
        raise RunError(f"a file of tensors must be readable, but {path} is not: {reason}") from e
