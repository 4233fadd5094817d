"""What the commands share: a parser whose complaints are short, and end with exit code 2."""

from __future__ import annotations

import argparse
from functools import partial
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """`argparse`'s, with descriptions as they are written, whole option names, and one line for an error."""

    def __init__(self, prog: str, *, usage: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=22, width=88),
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the choices are."""
        self.exit(2, f"error: {message}\ntry: {self.prog} --help\n")
