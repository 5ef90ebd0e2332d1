"""What happens to a chunk: read, compute, publish."""
