"""What a search survives: `python -m benchmarks.faults points|kills|disk|memory`."""
