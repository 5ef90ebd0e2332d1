"""Adapters: configuration, attention processors, merging, checkpoints."""
