"""What happens to a chunk: it is read, computed and published."""
