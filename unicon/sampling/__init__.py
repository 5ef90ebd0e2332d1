"""Sampling: step tables, samplers, guidance and the sampling loop."""
