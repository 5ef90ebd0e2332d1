"""The data plane: Ray Data flows from shards to datasets."""

VERSION = "0.1.0"
"""Of the project, as in pyproject.toml: every run's record names it."""
