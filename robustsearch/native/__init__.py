"""What is written in C: compiled once for a machine, and kept in the user's cache.

gate.c      gates as operators of onnxruntime, in its layout (`engines.kernel`)
layers.c    layers of a WideResNet for autograd (`models.kernels`): activate.h, convolve.h, and whole blocks of both
convolve.h  the convolutions that are either sums of products (direct.h) or Winograd's; sums.h is what both are made of
vectors.h   what all have: vectors, e^x, log x, random numbers
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-ffp-contract=fast")
UNITS = (2, 4, 8)
"""Units of a block for which both sources have gates."""


class CompilerError(Exception):
    """There is no compiler here, or none that understands the source."""


def compiled(source: str, **defines: int) -> Path:
    """A file of this folder as a shared library, from the user's cache where it is there already.

    Raises:
        CompilerError: it cannot be compiled, or the cache cannot be written.
    """
    options = [*FLAGS, *(f"-D{name}={value}" for name, value in defines.items())]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robustsearch"
    made = cache / f"{Path(source).stem}-{_fingerprint(source, options)}.so"
    if made.exists():
        return made
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "gcc"), "gcc", "cc"))), None)
    if compiler is None:
        raise CompilerError(f"{source} needs a C compiler, but neither gcc nor cc is there")
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            part = Path(folder) / made.name
            command = [compiler, *options, str(HERE / source), "-o", str(part), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode:
                reason = next((line for line in done.stderr.splitlines() if "error" in line), f"exit {done.returncode}")
                raise CompilerError(f"{source} must compile, but {compiler} says: {reason}")
            os.replace(part, made)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(f"{source} must compile into {cache}, but: {error}") from error
    return made


@functools.cache
def abilities() -> str:
    """What the processor says it can do, a word for each; empty where Linux does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")


def _fingerprint(source: str, options: list[str]) -> str:
    """Of all that the compiled code depends on: sources, options, and what the processor can do."""
    texts = [path.read_text() for path in (HERE / source, *sorted(HERE.glob("*.h")))]
    return hashlib.sha256("\n".join([*texts, *options, platform.machine(), abilities()]).encode()).hexdigest()[:16]
