"""A deterministic simulation of the data plane: real runs over a simulated storage, interleaved, killed and checked."""
