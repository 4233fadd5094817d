"""One seed per trial, from which every generator derives; the global seed changes nothing."""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for one named purpose; different names give unrelated seeds."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
