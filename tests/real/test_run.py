"""`batuta pacha run` with llama.cpp's own server, on the signed and on the encrypted SmolLM2, and on shards."""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batuta_cli.pacha.encryption import encrypt_path
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.signing import sign_path
from batuta_cli.serve.models.gguf import read_metadata
from tests.cli.support import own_key
from tests.conftest import BATUTA
from tests.real.support_llamacpp import SERVER, tiny_shards

PASSWORD = "correct horse battery staple"


@pytest.fixture
def key(home: Path) -> SigningKey:
    return own_key(home)


@contextlib.contextmanager
def served(model: Path, environment: dict[str, str], work: Path, placeholder: str = "{}") -> Iterator[int]:
    """The port of llama.cpp's server, started by `batuta pacha run`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    child = subprocess.Popen(
        [BATUTA, "pacha", "run", model, "--", sys.executable, "-c", SERVER, placeholder, str(port)],
        env=environment | {"MODEL_KEY": PASSWORD},
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert str(port) in child.stdout.readline(), "llama.cpp did not start"
        yield port
    finally:
        child.terminate()
        child.communicate(timeout=60)
    assert child.returncode in (0, 128 + 15)


def ask(port: int, path: str, body: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return json.load(connection.getresponse())


QUESTION = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}


@pytest.mark.parametrize("encrypted", [False, True], ids=["signed", "encrypted"])
def test_llama_cpp_serves_the_verified_model_although_its_file_changes(
    gguf: Path, environment: dict[str, str], work: Path, key: SigningKey, encrypted: bool
) -> None:
    model = work / "smollm2.gguf"
    shutil.copy(gguf, model)
    sign_path(model, key).save(work / "smollm2.gguf.sig")
    if encrypted:
        encrypt_path(model, work / "smollm2.gguf.enc", PASSWORD, format=2)
        model.unlink()
        model = work / "smollm2.gguf.enc"
    with served(model, environment, work) as port:
        with open(model, "r+b") as file:
            file.write(bytes(1 << 20))  # an attacker overwrites the file in place, which a mapping of it would show
        answered = ask(port, "/v1/completions", QUESTION)
        assert "Paris" in answered["choices"][0]["text"]
    files = ["smollm2.gguf.enc", "smollm2.gguf.sig"] if encrypted else ["smollm2.gguf", "smollm2.gguf.sig"]
    assert sorted(path.name for path in work.iterdir()) == files


def test_llama_cpp_finds_the_shards_of_a_model_in_the_directory(
    gguf: Path, environment: dict[str, str], work: Path, key: SigningKey
) -> None:
    names = {"tokenizer.ggml.tokens": "[str]", "tokenizer.ggml.merges": "[str]", "tokenizer.ggml.token_type": "[i32]"}
    metadata = read_metadata(gguf, arrays=names)
    kinds = names | {"tokenizer.ggml.model": "str", "tokenizer.ggml.pre": "str"}
    (work / "tiny").mkdir()
    shards = tiny_shards(work / "tiny", {name: (kind, metadata.get(name)) for name, kind in kinds.items()})
    sign_path(work / "tiny", key).save(work / "tiny.sig")
    with served(work / "tiny", environment, work, f"{{}}/{shards[0].name}") as port:
        for shard in shards:
            shard.unlink()
        assert len(ask(port, "/tokenize", {"content": "Hello world"})["tokens"]) == 2
