"""Image files: pixels from bytes and back, within limits, and what a file of bytes really is."""
