"""Deterministic simulation of the data plane: real runs on a simulated storage, interleaved, killed and checked."""
