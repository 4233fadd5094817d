"""robustsearch: search defence recipes for robust image classifiers, honestly.

space -> recipe -> trial (data, model, attacks, training, evaluation, latency) -> results -> analysis
"""

import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # a command, maybe of a clone that nobody installed; an older Python gets as far as here
    if sys.version_info < (3, 11):  # noqa: UP036
        found = f"{sys.executable} is {sys.version_info[0]}.{sys.version_info[1]}"
        sys.stderr.write(
            f"error: robustsearch needs Python 3.11 or later, but {found}; try: make PYTHON=python3.12 run\n"
        )
        sys.exit(2)
    from importlib.util import find_spec

    for needed in ("pydantic", "robustsearch.search_spaces"):  # the second is there once the clone is installed
        if find_spec(needed) is None:
            sys.stderr.write(
                f"error: robustsearch must be installed in the Python that runs it, but {sys.executable} has no "
                f"{needed}; try: make install, then . .venv/bin/activate\n"
            )
            sys.exit(2)
