"""Facts about a model, by its name or its file: context window, price, and the metadata of a GGUF file."""
