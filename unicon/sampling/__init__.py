"""Step tables, samplers, guidance, and the sampling loop."""
