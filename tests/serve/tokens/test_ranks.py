"""OpenAI's encodings, without a network."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from batuta_cli.errors import UsageError
from batuta_cli.serve.tokens.ranks import ENCODINGS, encoding, rank_file, ranks

# As tiktoken_ext/openai_public.py has them.
PUBLISHED = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "p50k_base": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    "r50k_base": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
}

OFFLINE = """
import os, socket, sys
def refused(*_, **__): raise AssertionError("a socket was asked for")
socket.socket = socket.create_connection = socket.getaddrinfo = refused
assert not {"TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"} & os.environ.keys()
import tiktoken
from batuta_cli.serve.tokens.ranks import ENCODINGS, serve_offline
serve_offline()
for name in ENCODINGS: tiktoken.get_encoding(name)
print(tiktoken.encoding_for_model("gpt-4o").encode("tiktoken is great!"))
print(tiktoken.encoding_for_model("gpt-4").encode("tiktoken is great!"))
print(tiktoken.encoding_for_model("text-davinci-003").encode("tiktoken is great!"))
"""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_packed_ranks_are_the_published_files(name: str) -> None:
    assert hashlib.sha256(rank_file(ranks(name))).hexdigest() == PUBLISHED[name]


def test_tiktoken_works_with_sockets_blocked_and_writes_nothing(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    # The first and third from tiktoken's README and the OpenAI cookbook; the second from both.
    assert done.stdout.splitlines() == [
        "[83, 8251, 2488, 382, 2212, 0]",
        "[83, 1609, 5963, 374, 2294, 0]",
        "[83, 1134, 30001, 318, 1049, 0]",
    ]
    assert list(tmp_path.iterdir()) == []


def test_an_encoding_that_is_not_packed_is_an_error_and_no_download() -> None:
    with pytest.raises(UsageError, match="unknown encoding gpt2") as caught:
        encoding("gpt2")
    assert all(name in (caught.value.hint or "") for name in ENCODINGS)


def test_a_tiktoken_that_wants_other_ranks_gets_an_error_and_no_download() -> None:
    script = """
import socket, tiktoken_ext.openai_public as public
def refused(*_, **__): raise AssertionError("a socket was asked for")
socket.socket = socket.create_connection = socket.getaddrinfo = refused
public.ENCODING_CONSTRUCTORS["cl100k_base"] = lambda: public.load_tiktoken_bpe("https://example.org/x", "00" * 32)
from batuta_cli.errors import UsageError
from batuta_cli.serve.tokens.ranks import encoding
try:
    encoding("cl100k_base")
except UsageError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "expects a rank file that batuta does not have" in done.stdout
