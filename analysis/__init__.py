"""Results to tables to figures: what a run found, from its folder alone, without torch, ray or optuna."""
