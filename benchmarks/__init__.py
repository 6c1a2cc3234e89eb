"""Raffel beside the bare limit and its peers, measured in one run: `python -m benchmarks --help`."""
