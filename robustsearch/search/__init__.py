"""The search above trials: Optuna proposes, Ray Tune runs, successive halving stops, a ledger remembers.

spaces      find a search space by name or file
ledger      what every trial is and was, rebuilt from the event log; writes the results
searcher    Optuna's ask and tell behind Ray Tune's `Searcher`
listed      the rows of a design behind the same
halving     which trials go on: multi-objective asynchronous successive halving
scheduler   that rule behind Ray Tune's `TrialScheduler`
worker      the Tune trainable around `robustsearch.trial`
board       TensorBoard
tuner       one search from settings to results
console     what a person sees while it runs
"""
