"""The recorded table: a full grid of recipes, trained and attacked for real, on which searchers are compared.

`digits.parquet` holds every recipe of `grid` at each of its rungs, in the columns of a run's results. It was made by

    python -m benchmarks.recorded.record --out runs/recorded      goes on where it was stopped; `--part` shares the work
    python -m benchmarks.recorded.record --out runs/recorded --pack benchmarks/recorded/digits.parquet
"""
