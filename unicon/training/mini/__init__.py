"""Training the embedded model `mini` from nothing."""
