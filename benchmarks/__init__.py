"""Measurements of the models and the data plane."""
