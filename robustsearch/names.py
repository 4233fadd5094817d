"""Names that become files and folders, and may come from elsewhere: none of them leads out of its folder."""

from __future__ import annotations

import re

from .errors import RunError


def checked_name(name: str, what: str) -> str:
    """The name of a run, a trial or a file, as it is.

    Raises:
        RunError: it could name something in another folder, or a hidden file.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]*", name):
        raise RunError(
            f"{what}'s name must be letters, digits, '.', '_', '=' and '-', the first a letter or digit, "
            f"but got {name!r}"
        )
    return name
