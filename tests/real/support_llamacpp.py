"""llama.cpp's own server, from the package xllamacpp, around any vocabulary."""

import contextlib
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.serve.support_gguf import gguf, string

SERVER = """
import sys, threading, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.hostnames, parameters.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads, parameters.warmup = 512, 1, 1, False
if sys.argv[3:] == ["embeddings"]:
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
threading.Event().wait()
"""

_WIDTH = 32


def tiny_model(path: Path, vocabulary: Mapping[str, tuple[str, Any]]) -> Path:
    """A model of one layer and no sense, which llama.cpp loads for the sake of its vocabulary."""
    _write(path, _fields(vocabulary), _tensors(vocabulary))
    return path


def tiny_shards(folder: Path, vocabulary: Mapping[str, tuple[str, Any]]) -> list[Path]:
    """The same model as two files, named and marked as gguf-split of llama.cpp does; llama.cpp is given the first."""
    tensors = _tensors(vocabulary)
    halves = (dict(list(tensors.items())[:5]), dict(list(tensors.items())[5:]))
    paths = [folder / f"tiny-{number:05}-of-00002.gguf" for number in (1, 2)]
    for number, (path, half) in enumerate(zip(paths, halves, strict=True)):
        marks = {
            "split.no": ("u16", number),
            "split.count": ("u16", 2),
            "split.tensors.count": ("i32", len(tensors)),
        }
        _write(path, marks | (_fields(vocabulary) if number == 0 else {}), half)
    return paths


def _fields(vocabulary: Mapping[str, tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    size = len(vocabulary["tokenizer.ggml.tokens"][1])
    numbers = {
        "block_count": 1, "context_length": 512, "embedding_length": _WIDTH, "feed_forward_length": _WIDTH,
        "attention.head_count": 1, "vocab_size": size, "rope.dimension_count": _WIDTH,
    }  # fmt: skip
    fields: dict[str, tuple[str, Any]] = {"general.architecture": ("str", "llama")}
    fields |= {f"llama.{name}": ("u32", number) for name, number in numbers.items()}
    return fields | {"llama.attention.layer_norm_rms_epsilon": ("f32", 1e-5)} | dict(vocabulary)


def _tensors(vocabulary: Mapping[str, tuple[str, Any]]) -> dict[str, tuple[int, ...]]:
    size = len(vocabulary["tokenizer.ggml.tokens"][1])
    square, line, table = (_WIDTH, _WIDTH), (_WIDTH,), (_WIDTH, size)
    tensors: dict[str, tuple[int, ...]] = {"token_embd": table, "output_norm": line, "output": table}
    layer: dict[str, tuple[int, ...]] = {"attn_norm": line, "ffn_norm": line}
    layer |= dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"), square)
    return tensors | {f"blk.0.{name}": shape for name, shape in layer.items()}


def _write(path: Path, fields: Mapping[str, tuple[str, Any]], tensors: Mapping[str, tuple[int, ...]]) -> None:
    content, offset = bytearray(gguf(fields)), 0
    content[8:16] = struct.pack("<Q", len(tensors))
    for name, shape in tensors.items():
        dimensions = b"".join(struct.pack("<Q", length) for length in shape)
        content += string(name + ".weight") + struct.pack("<I", len(shape)) + dimensions
        content += struct.pack("<IQ", 0, offset)  # 0: 32-bit floats
        offset += 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
    content += bytes(-len(content) % 32)
    path.write_bytes(content)
    os.truncate(path, len(content) + offset)


class LlamaCpp:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """What it makes of a text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps({"content": text, "add_special": False, "parse_special": special})
        connection.request("POST", "/tokenize", body, {"Content-Type": "application/json"})
        with contextlib.closing(connection), connection.getresponse() as answer:
            return list(json.load(answer)["tokens"])


@contextlib.contextmanager
def llama_cpp(model: Path, *, embeddings: bool = False) -> Iterator[LlamaCpp]:
    """The server of a model file, gone after the block; with `embeddings` it makes nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(model), str(port), *(["embeddings"] if embeddings else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert str(port) in line, f"llama.cpp did not start with {model.name}: {line}"
        yield LlamaCpp(port)
    finally:
        process.kill()
        process.communicate()
