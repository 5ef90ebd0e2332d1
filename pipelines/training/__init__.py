"""Corpora as streams of training batches, and the training of adapters on a cluster."""
