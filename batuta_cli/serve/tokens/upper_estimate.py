"""An upper estimate, for a model whose tokenizer is not available: Claude 3 and later, Gemini, unknown names.

A tokenizer in use makes at most one token for each UTF-8 byte, because single bytes are its fallback. For prose that
bound is four to five times too high. The estimate uses it where tokenizers differ and lowers it where they agree:

* Characters outside ASCII: one token a byte. Vocabularies made for English do that to Chinese and emoji.
* Digits, punctuation, line breaks and tabs: one token each. Many tokenizers split every digit, and few join symbols.
* Spaces: one token for two. All vocabularies of recent years have tokens for long runs of spaces.
* Words (ASCII letters with the space before): twice the tokens of p50k, at least one for four letters, at most one a
  byte. p50k (GPT-3) has the smallest packed vocabulary, so it makes the most tokens. Claude's counts are reported at up
  to 1.4 times those of cl100k. A word that repeats up to four letters three times ("oooo", "hahaha") counts one token a
  byte, because few vocabularies have such runs.

The estimate is about twice the true count for English prose, two and a half times for code, and three to five times for
other scripts. A worse tokenizer could exceed it, up to the number of bytes. The tests compare it with cl100k, o200k,
SmolLM2 and Llama 2.
"""

import re
from collections import Counter
from typing import Final

from batuta_cli.errors import InvalidInputError
from batuta_cli.serve.tokens.tokenizer import check_text

METHOD: Final = "upper estimate"

_WORD: Final = re.compile(" ?[A-Za-z]+")
_BLANKS: Final = re.compile("  +(?![A-Za-z])|  +(?= [A-Za-z])| (?![A-Za-z])")
_REPEATED: Final = re.compile(r"(.{1,4})\1\1")
_FACTOR: Final = 2
_LETTERS_A_TOKEN: Final = 4


class Estimator:
    """A `Tokenizer` that can only count, and whose counts are upper estimates."""

    exact = False

    def __init__(self, name: str = METHOD) -> None:
        self.name = name

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Raises `InvalidInputError`: an estimate has no vocabulary."""
        raise InvalidInputError(
            "the model's tokenizer is not known: its tokens cannot be listed, only their number estimated",
            hint="set tokenizer of [models] in the config to a tokenizer.json of this model",
        )

    def count(self, text: str, *, special: bool = False) -> int:
        """At least as many tokens as the model makes. Control tokens count as text, which is more."""
        check_text(text)
        words = Counter(match[0] for match in _WORD.finditer(text))
        in_words = sum(len(word) * times for word, times in words.items())
        doubled = sum(match.end() - match.start() for match in _BLANKS.finditer(text))
        paired = sum((match.end() - match.start() + 1) // 2 for match in _BLANKS.finditer(text))
        others = len(text.encode()) - in_words - doubled
        # One more for the space that SentencePiece inserts before a text.
        return (others + paired + sum(_word(word) * times for word, times in words.items()) + 1) if text else 0


def _word(word: str) -> int:
    from batuta_cli.serve.tokens.ranks import encoding

    if _REPEATED.search(word):
        return len(word)
    least = -(-len(word) // _LETTERS_A_TOKEN)
    return min(len(word), max(least, _FACTOR * len(encoding("p50k_base").encode_ordinary(word))))
