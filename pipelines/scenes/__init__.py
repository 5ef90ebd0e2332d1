"""Rendered scenes as tars: images with exact conditions."""
