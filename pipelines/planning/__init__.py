"""Shards minus finished chunks: what is left to do."""
