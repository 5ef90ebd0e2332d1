"""Bytes in the wild become samples: one file for each shard format."""
