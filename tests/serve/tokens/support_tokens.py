"""Vocabularies and vectors of llama.cpp.

`vectors/mistral-v1.gguf.xz` is the SentencePiece vocabulary of Mistral 7B v0.1, from the PyPI package mistral-common.
`vectors/llamacpp.json` has the texts of llama.cpp's `.gguf.inp` files. GPT-2's ids are those of its `.out` files; those
of Mistral and SmolLM2 were given by its server (xllamacpp 0.2), and `sentencepiece` gives the same for Mistral's.
"""

import itertools
import json
import lzma
from pathlib import Path
from typing import Any

from batuta_cli.serve.tokens.ranks import ranks
from tests.serve.support_gguf import gguf

VECTORS = Path(__file__).with_name("vectors")
ROWS: list[dict[str, Any]] = json.loads((VECTORS / "llamacpp.json").read_text())


def mistral_v1(directory: Path) -> Path:
    """Mistral 7B v0.1's vocabulary as a GGUF file."""
    path = directory / "mistral-v1.gguf"
    path.write_bytes(lzma.decompress((VECTORS / "mistral-v1.gguf.xz").read_bytes()))
    return path


def gpt2(directory: Path, **fields: Any) -> Path:
    """GPT-2's vocabulary as a GGUF file: the tokens of r50k_base, and the merges that make them."""
    spelling = {byte: chr(byte) for byte in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))}
    spelling |= {byte: chr(256 + n) for n, byte in enumerate(byte for byte in range(256) if byte not in spelling)}
    known = ranks("r50k_base")

    def spelt(token: bytes) -> str:
        return "".join(spelling[byte] for byte in token)

    merges = [" ".join(map(spelt, halves(token, known))) for token in known if len(token) > 1]
    tokens = [*map(spelt, known), "<|endoftext|>", "<tool>"]
    path = directory / "gpt2.gguf"
    content = {
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "gpt-2"),
        "tokenizer.ggml.tokens": ("[str]", tokens),
        "tokenizer.ggml.token_type": ("[i32]", [1] * len(known) + [3, 4]),
        "tokenizer.ggml.merges": ("[str]", merges),
    }
    path.write_bytes(gguf(content | fields))
    return path


def halves(token: bytes, known: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that byte-pair merging has left before the last merge, the one that makes `token`."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        order = [known.get(a + b, len(known)) for a, b in itertools.pairwise(parts)]
        at = order.index(min(order))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]
