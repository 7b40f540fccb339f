"""Few threads, little memory and panics of native libraries: the work is done all the same, or the cause is named."""

import json
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from tests.cli.support import answer
from tests.conftest import BATUTA, Run

LLAMA_3 = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
CONTENT = b"weights" * 2_000_000  # 14 MB: enough for the thread pool of blake3

Limited = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def limited(environment: dict[str, str], home: Path, work: Path, tmp_path: Path) -> Limited:
    """Run `batuta` with at most so many threads, in place of root as another user: RLIMIT_NPROC does not bind root.

    The capabilities let that user reach the interpreter, wherever it is.
    """
    for directory in (tmp_path, home, work):
        directory.chmod(0o777)

    def run(threads: int, *arguments: str, uid: int, **variables: str) -> "subprocess.CompletedProcess[str]":
        reach = "-all,+dac_override,+dac_read_search"
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", f"--inh-caps={reach}"]
        user = [*user, f"--ambient-caps={reach}"] if os.getuid() == 0 else []
        return subprocess.run(
            [*user, "prlimit", f"--nproc={threads}", BATUTA, *arguments],
            env=environment | variables,
            cwd=work,
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
        )

    return run


# Each test has a user of its own, because the limit counts all threads of a user.
@pytest.mark.parametrize(
    ("uid", "threads", "variables"),
    [(64_101, 1, {}), (64_102, 2, {}), (64_103, 20, {"RAYON_NUM_THREADS": "64"})],
)
def test_a_model_is_hashed_with_fewer_threads_where_few_can_be_started(
    limited: Limited, work: Path, uid: int, threads: int, variables: dict[str, str]
) -> None:
    (work / "model").mkdir()
    for name in ("a", "b"):
        (work / "model" / name).write_bytes(CONTENT)
    done = limited(threads, "pacha", "hash", "model/a", "--json", uid=uid, **variables)
    assert answer(done)["result"][0]["address"] == f"blake3:{blake3(CONTENT).hexdigest()}"
    assert done.stderr == ""
    for arguments in (["hash", "model"], ["store", "add", "model/a", "--name", "a"]):
        done = limited(threads, "pacha", *arguments, uid=uid, **variables)
        assert (done.returncode, done.stderr) == (0, "")


def test_what_needs_a_thread_that_cannot_be_started_says_so(limited: Limited, work: Path) -> None:
    (work / "model").write_bytes(CONTENT)
    for flags in ((), ("--json",)):
        done = limited(1, "pacha", "encrypt", "model", *flags, uid=64_104, MODEL_KEY="secret")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr and "bug in batuta" not in done.stderr + done.stdout
        if flags:
            assert answer(done)["error"]["kind"] == "no_thread"
        else:
            assert done.stderr.startswith("error: cannot start the 4 threads that derive the key\n")
    assert [path.name for path in work.iterdir()] == ["model"]


def test_too_little_memory_is_exit_1_with_its_cause_and_one_document(batuta: Run, work: Path) -> None:
    (work / "model").write_bytes(b"weights")

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (100_000 * 1024,) * 2)

    for arguments in (["pacha", "encrypt", "model"], ["serve", "context", "--model", "gpt-4o", "--user", "hi"]):
        done = batuta(*arguments, "--json", env={"MODEL_KEY": "secret"}, preexec_fn=little, code=1)
        assert "not enough memory to " in answer(done)["error"]["message"]
        assert done.stderr == "" and "bug in batuta" not in done.stdout


@pytest.fixture
def tokenizer(work: Path) -> Path:
    """A `tokenizer.json` with Llama 3's pattern, and a token for each byte."""
    tokenizers = pytest.importorskip("tokenizers")
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(LLAMA_3), "isolated")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = {letter: number for number, letter in enumerate(sorted(level.alphabet()))}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
    made.save(str(work / "tokenizer.json"))
    return work / "tokenizer.json"


def test_eleven_million_blanks_are_an_error_that_says_what_cannot_be_tokenized(batuta: Run, tokenizer: Path) -> None:
    messages = json.dumps([{"role": "user", "content": f"a{' ' * 11_000_000}b"}])
    line = ("serve", "context", "--model", "llama-3-8b", "--tokenizer", str(tokenizer), "--messages", "-")
    done = batuta(*line, input=messages, code=1)
    assert done.stderr.startswith("error: cannot tokenize: a run of 11,000,000 white-space characters\n")
    assert "panicked" not in done.stderr and "Traceback" not in done.stderr
    assert answer(batuta(*line, "--json", input=messages, code=1))["error"]["message"].startswith("cannot tokenize")
