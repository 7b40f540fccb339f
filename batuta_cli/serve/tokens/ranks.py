"""OpenAI's encodings without a network: tiktoken's rank files, packed in the wheel.

    encoding("cl100k_base").encode_ordinary("Hello")

After `serve_offline`, tiktoken takes the packed ranks instead of downloading a file whose expected SHA-256 is one of
`EXPECTED`. `tiktoken.get_encoding` and `encoding_for_model` then work with sockets blocked, and nothing is written. Any
other file is still downloaded when another part of the program asks tiktoken for it. `encoding`, which batuta calls,
never downloads: it raises `UsageError` for an encoding that is not packed, or whose file a newer tiktoken has replaced.

`scripts/make_ranks.py` makes the packed files. NOTICE names their sources.
"""

import base64
import functools
import itertools
import zlib
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final

from batuta_cli.errors import UsageError
from batuta_cli.limits import check_memory
from batuta_cli.serve.names import unknown_name

if TYPE_CHECKING:
    import tiktoken

DATA: Final = Path(__file__).with_name("data")

EXPECTED: Final[Mapping[str, str]] = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "p50k_base": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    "r50k_base": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
}
"""The SHA-256 of each rank file as OpenAI publishes it, from `tiktoken_ext/openai_public.py`."""

ENCODINGS: Final = ("cl100k_base", "o200k_base", "o200k_harmony", "p50k_base", "p50k_edit", "r50k_base")
"""tiktoken's encodings that use those files. Its `gpt2` is `r50k_base` under another name."""

_MEMORY: Final = 96 * 1024 * 1024  # bytes; the largest encoding, o200k_base, was measured to take 85 MiB

_no_download: Final = ContextVar("_no_download", default=False)
_R50K_RANKS = 50_256  # r50k_base is the first 50,256 ranks of p50k_base
_NAMES = {digest: name for name, digest in EXPECTED.items()}


def ranks(name: str) -> dict[bytes, int]:
    """The ranks of a file in `EXPECTED`."""
    if name == "r50k_base":
        return dict(itertools.islice(ranks("p50k_base").items(), _R50K_RANKS))
    return unpack((DATA / f"{name}.ranks").read_bytes())


def unpack(packed: bytes) -> dict[bytes, int]:
    """Ranks by token, in order of rank. `scripts/make_ranks.py` describes the format."""
    plain = zlib.decompress(packed)
    count = int.from_bytes(plain[:4], "little")
    ends = itertools.accumulate(plain[4 : 4 + count], initial=4 + count)
    found = {plain[start:end]: rank for rank, (start, end) in enumerate(itertools.pairwise(ends))}
    found.pop(b"", None)  # a rank without a token
    return found


def rank_file(ranks: Mapping[bytes, int]) -> bytes:
    """These ranks in the format in which OpenAI publishes them."""
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items())


@functools.cache
def serve_offline() -> None:
    """Make tiktoken use the packed ranks from now on, in this process."""
    from tiktoken_ext import openai_public  # type: ignore[import-untyped]

    original = openai_public.load_tiktoken_bpe

    def load(tiktoken_bpe_file: str, expected_hash: str | None = None) -> dict[bytes, int]:
        if name := _NAMES.get(expected_hash or ""):
            return ranks(name)
        if _no_download.get():
            raise UsageError(
                f"the installed tiktoken expects a rank file that batuta does not have: SHA-256 {expected_hash}"
            )
        downloaded: dict[bytes, int] = original(tiktoken_bpe_file, expected_hash)
        return downloaded

    openai_public.load_tiktoken_bpe = load


def encoding(name: str) -> "tiktoken.Encoding":
    """One of tiktoken's encodings, from the packed ranks.

    Raises `UsageError` for one that is not packed, `OutOfMemoryError`.
    """
    if name not in ENCODINGS:
        raise unknown_name("encoding", name, ENCODINGS)
    check_memory(_MEMORY, f"load the encoding {name}")
    import tiktoken

    serve_offline()
    before = _no_download.set(True)
    try:
        return tiktoken.get_encoding(name)
    finally:
        _no_download.reset(before)
