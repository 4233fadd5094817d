"""The search above trials: Optuna proposes, Ray Tune runs, successive halving stops, a ledger remembers.

spaces      find a search space by name or file
ledger      what every trial is and was, rebuilt from the event log; writes the results
proposer    a ledger's trials behind Ray Tune's `Searcher`, for the two that follow
searcher    Optuna's ask and tell
listed      the rows of a design
gaining     the rows of a path that finds its own
racing      which candidate for the front is trained again with another seed
halving     which trials go on: multi-objective asynchronous successive halving
scheduler   that rule behind Ray Tune's `TrialScheduler`
worker      the Tune trainable around `robustsearch.trial`
board       TensorBoard
settings    what a run is asked to do
assemble    its searcher and scheduler, from the settings
placement   where trials run: the Ray cluster
tuner       one search from settings to results
elsewhere   trials logged in MLflow or Weights & Biases too
closing     how it ends: the front examined, shown and drawn
console     what a person sees while it runs
live        what the search has attained so far, for console and TensorBoard
simulate    a search in simulated time, through the same searcher and scheduler
recorded    learning curves of trials that were run, for it
replay      the decisions of a run again, from its event log
"""
