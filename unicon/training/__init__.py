"""Training adapters, and the embedded model `mini`."""
