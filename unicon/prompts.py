"""How much of a prompt the text encoder gets."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def tokens_cut(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[int]:
    """How many tokens of each prompt a text encoder does not get, since it takes no more than the tokenizer says."""
    most = tokenizer.model_max_length
    return [
        max(0, len(tokenizer(prompt, truncation=False, verbose=False).input_ids) - most)
        if len(prompt.encode(errors="replace")) + 2 > most  # a token is a byte or more, and two stand around them
        else 0
        for prompt in prompts
    ]
