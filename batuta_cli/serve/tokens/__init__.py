"""Token counts: exact and offline where the tokenizer is known, otherwise an upper estimate marked as such.

    tokenizer_for("gpt-4o").count("Hello")
    count_messages("gpt-4o", [ChatMessage.user("Hello")])

Nothing here uses the network. A tokenizer that needs the extra `tokenizers` raises `MissingDependencyError` without it.
"""

from batuta_cli.serve.tokens.counting import count_messages, count_prompt
from batuta_cli.serve.tokens.resolve import tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount, Tokenizer

__all__ = ["TokenCount", "Tokenizer", "count_messages", "count_prompt", "tokenizer_for"]
