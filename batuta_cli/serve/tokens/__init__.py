"""Token counts: exact and offline where the tokenizer is known, an upper estimate that says so where it is not.

    tokenizer_for("gpt-4o").count("Hello")
    count_messages("gpt-4o", [ChatMessage.user("Hello")])

Nothing here uses the network. What needs the extra `tokenizers` says so with a `MissingDependencyError`.
"""

from batuta_cli.serve.tokens.counting import count_messages, count_prompt
from batuta_cli.serve.tokens.resolve import tokenizer_for
from batuta_cli.serve.tokens.tokenizer import TokenCount, Tokenizer

__all__ = ["TokenCount", "Tokenizer", "count_messages", "count_prompt", "tokenizer_for"]
