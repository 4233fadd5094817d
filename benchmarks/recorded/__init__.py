"""The recorded table: a full grid of recipes, trained and attacked for real, on which searchers are compared.

`digits.parquet` holds every recipe of `grid` after every epoch, in the columns of a run's results; `record` made it:

    python -m benchmarks.recorded.record --out runs/recorded     some hours on two cores; goes on where it was stopped
"""
