"""The data plane: Ray Data flows from shards to datasets."""

VERSION = "0.2.0"
"""Of the project, as in pyproject.toml: every run's record names it."""
