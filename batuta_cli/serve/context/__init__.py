"""Whether a conversation fits the context window of a model, and how it is truncated when it does not."""
