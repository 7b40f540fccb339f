"""An upper estimate, for a model whose tokenizer cannot be had: Claude 3 and later, Gemini, one known by name alone.

What it rests on. No tokenizer in use makes more tokens of a text than it has UTF-8 bytes: bytes are what they all fall
back to. That bound is too wide for prose, four to five times, so it is taken where texts differ from one tokenizer to
the next and narrowed where they agree:

* anything but ASCII: every byte is a token. Vocabularies made for English do that to Chinese or emoji.
* digits, punctuation, line breaks and tabs: each is a token. Many tokenizers split every digit; few join symbols.
* blanks: two make a token. All vocabularies of the last years have long runs of them.
* words, runs of ASCII letters with the blank before: twice the tokens that p50k makes of them, but at least one for
  each four letters and at most one a byte. p50k (GPT-3) has the smallest vocabulary at hand, so it makes the most
  tokens; Claude's are reported at up to 1.4 times cl100k's. A word that says up to four letters three times ("oooo",
  "hahaha") is counted by the byte: few vocabularies have such runs.

English prose is so counted about double, code about two and a half times, other scripts three to five times. A
tokenizer made to be worse than all of these could still make more tokens than this says, up to the number of bytes;
the tests compare with cl100k, o200k, SmolLM2's and Llama 2's.
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
    """A `Tokenizer` that can only count, and counts too much."""

    exact = False

    def __init__(self, name: str = METHOD) -> None:
        self.name = name

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Raises `InvalidInputError`: there is no vocabulary."""
        raise InvalidInputError(
            "the model's tokenizer is not known, so its tokens cannot be told, only how many at most",
            hint="set tokenizer of [models] in the config to a tokenizer.json of this model",
        )

    def count(self, text: str, *, special: bool = False) -> int:
        """At least as many tokens as the model makes. Control tokens are counted as text, which is more."""
        check_text(text)
        words = Counter(match[0] for match in _WORD.finditer(text))
        in_words = sum(len(word) * times for word, times in words.items())
        doubled = sum(match.end() - match.start() for match in _BLANKS.finditer(text))
        paired = sum((match.end() - match.start() + 1) // 2 for match in _BLANKS.finditer(text))
        others = len(text.encode()) - in_words - doubled
        # One for the blank that SentencePiece puts before a text.
        return (others + paired + sum(_word(word) * times for word, times in words.items()) + 1) if text else 0


def _word(word: str) -> int:
    from batuta_cli.serve.tokens.ranks import encoding

    if _REPEATED.search(word):
        return len(word)
    least = -(-len(word) // _LETTERS_A_TOKEN)
    return min(len(word), max(least, _FACTOR * len(encoding("p50k_base").encode_ordinary(word))))
