"""Planning: the chunks of the input that are not finished yet."""
