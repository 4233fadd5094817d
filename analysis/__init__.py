"""Results to tables to figures: what a run found, from its folder alone, without torch, ray or optuna."""

import robustsearch as robustsearch  # which says what is wrong where it is not installed
