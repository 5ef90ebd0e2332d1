"""Counting the tokens of prompts beyond the limit of the text encoder.

Tested in tests/unicon/test_generation.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def tokens_cut(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[int]:
    """The number of tokens by which each prompt exceeds the maximum length of the tokenizer."""
    most = tokenizer.model_max_length
    return [
        max(0, len(tokenizer(prompt, truncation=False, verbose=False).input_ids) - most)
        if len(prompt.encode(errors="replace")) + 2 > most  # a token has at least a byte, and two enclose the prompt
        else 0
        for prompt in prompts
    ]
