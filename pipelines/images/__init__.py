"""Image files: decoding and encoding within limits, and recognizing the real content of a file."""
