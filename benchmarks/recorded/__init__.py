"""The recorded table: a full grid of recipes, trained and attacked for real, on which searchers are compared.

`digits.parquet` holds every recipe of `grid` after seven of its twelve epochs, in the columns of a run's results. Two
processes made it at once; it was then packed:

    python -m benchmarks.recorded.record --out runs/recorded --part 0/2      half an hour; goes on where it was stopped
    python -m benchmarks.recorded.record --out runs/recorded --part 1/2
    python -m benchmarks.recorded.record --out runs/recorded --pack benchmarks/recorded/digits.parquet
"""
