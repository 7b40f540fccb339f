"""Token counts: exact and offline where the tokenizer is known, an upper estimate that says so where it is not."""
