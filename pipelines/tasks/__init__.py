"""The tasks: what the model does with a row, one file for each."""
