"""Exceptions of robustsearch.

    RobustSearchError
    ├── UserError            the input is wrong; nothing has started (exit code 2 at the command line)
    │   ├── RecipeError      a recipe breaks one of its rules
    │   ├── SpaceError       a search space cannot be found or does not yield recipes
    │   ├── DatasetError     a dataset is unknown, absent or malformed
    │   └── RunError         a run folder is absent, taken, unwritable or not one of ours
    ├── StorageError         what a run must write cannot be written; nothing that was written is lost (exit code 3)
    ├── WorkersError         worker after worker dies before it comes to an epoch; the run can be resumed (exit code 3)
    └── TrialError           a trial cannot go on; it becomes a row of the results with its reason
        └── DivergedError    the training loss is no longer finite

A message states the rule, then the value: "`epsilon` must be in (0, 1], but got 8".
"""

from __future__ import annotations


class RobustSearchError(Exception):
    """Root of every exception that robustsearch raises on purpose."""


class UserError(RobustSearchError, ValueError):
    """The user's input is wrong; found before the first trial starts."""


class RecipeError(UserError):
    """A recipe breaks one of its rules."""


class SpaceError(UserError):
    """A search space cannot be found or does not yield recipes."""


class DatasetError(UserError):
    """A dataset is unknown, absent or malformed."""


class RunError(UserError):
    """A run folder is absent, taken, unwritable or not one of ours."""


class StorageError(RobustSearchError):
    """What a run must write cannot be written."""


class WorkersError(RobustSearchError):
    """Worker after worker dies."""


class TrialError(RobustSearchError):
    """A trial cannot go on."""


class DivergedError(TrialError):
    """The training loss is no longer finite."""
