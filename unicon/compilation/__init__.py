"""Compiling the model: when it pays (`policy`), the compiled calls (`compiled`), CUDA graphs, and the cache of code."""
