"""Restricted machines: no home, no passwd entry, few threads, little memory, a locale that is not UTF-8."""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from batuta_cli.pacha.hashing import content_address
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.signing import sign_path
from tests.cli.support import answer, names_in
from tests.conftest import BATUTA, Run

CONTENT = b"weights" * 2_000_000  # 14 MB: enough for the thread pool of blake3
KEY = SigningKey.generate("alice")

As = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def as_stranger(environment: dict[str, str], work: Path, tmp_path: Path) -> As:
    """Run `batuta` as a user without a passwd entry, with some variables set and others unset.

    The capabilities let that user reach the interpreter, wherever it is.
    """
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    for directory in (tmp_path, work):
        directory.chmod(0o777)

    def run(
        *arguments: str, uid: int = 64_201, threads: int | None = None, unset: tuple[str, ...] = (), **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        reach = "-all,+dac_override,+dac_read_search"
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", f"--inh-caps={reach}"]
        limit = [] if threads is None else ["prlimit", f"--nproc={threads}"]
        left = {name: value for name, value in environment.items() if name not in unset}
        return subprocess.run(
            [*user, f"--ambient-caps={reach}", *limit, BATUTA, *arguments],
            env=left | variables,
            cwd=work,
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
        )

    return run


NO_HOME = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def model(work: Path) -> Path:
    """A signed model of two large files, the key beside it."""
    path = work / "model"
    path.mkdir()
    for name in ("a", "b"):
        (path / name).write_bytes(CONTENT)
    sign_path(path, KEY).save(work / "model.sig")
    (work / "alice.pub").write_bytes(KEY.verifying_key.to_pem())
    (work / "alice.key").write_bytes(KEY.to_pem())
    (work / "alice.key").chmod(0o600)
    return path


@pytest.mark.parametrize("empty", [{}, {"HOME": ""}])
def test_without_a_home_all_works_that_needs_none(
    as_stranger: As, model: Path, work: Path, empty: dict[str, str]
) -> None:
    before = names_in(work)
    for arguments in (
        ("hash", "model"),
        ("verify", "model", "--key", "alice.pub"),
        ("sign", "model/a", "--key", "env:SIGNING_KEY", "--output", "a.sig"),
        ("inspect", "model.sig", "--quiet"),
        ("encrypt", "alice.pub"),
    ):
        variables = {"SIGNING_KEY": KEY.to_pem().decode(), "MODEL_KEY": "secret"}
        done = as_stranger("pacha", *arguments, unset=NO_HOME, **variables, **empty)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    assert names_in(work) == sorted([*before, "a.sig", "alice.pub.enc"])
    done = as_stranger("pacha", "hash", "nowhere", unset=NO_HOME, **empty)
    assert (done.returncode, done.stderr) == (1, "error: nowhere: no such file or directory\n")
    assert as_stranger("pacha", "verify", "model", unset=NO_HOME, **empty).returncode == 4


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (("pacha", "keygen"), "XDG_DATA_HOME"),
        (("pacha", "keys", "list"), "XDG_DATA_HOME"),
        (("pacha", "sign", "model"), "XDG_DATA_HOME"),
        (("pacha", "trust", "add", "alice", "alice.pub"), "XDG_DATA_HOME"),
        (("pacha", "store", "list"), "XDG_DATA_HOME"),
        (("pacha", "store", "add", "alice.pub"), "XDG_DATA_HOME"),
        (("config", "init"), "XDG_CONFIG_HOME"),
        (("serve", "budget", "status"), "XDG_STATE_HOME"),
    ],
)
def test_what_needs_a_home_says_that_there_is_none(
    as_stranger: As, model: Path, work: Path, arguments: tuple[str, ...], variable: str
) -> None:
    before = names_in(work)
    done = as_stranger(*arguments, unset=NO_HOME)
    assert done.returncode == 1
    assert "there is no home directory: HOME is not set, and the user id 64201 has no passwd entry" in done.stderr
    assert f"hint: set HOME or {variable}" in done.stderr
    assert names_in(work) == before  # nothing was written to a directory called ~
    if arguments[1] != "budget":
        assert as_stranger(*arguments, unset=NO_HOME, **{variable: str(work / "xdg")}).returncode in (0, 1)


def test_the_home_of_the_passwd_entry_is_used_without_a_variable(
    environment: dict[str, str], work: Path, home: Path
) -> None:
    left = {name: value for name, value in environment.items() if name not in NO_HOME}
    for empty in ({}, {"HOME": ""}):
        done = subprocess.run(
            [BATUTA, "config", "path"], env=left | empty, cwd=work, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip().startswith(os.path.expanduser("~root" if os.getuid() == 0 else "~") + "/.config/")


@pytest.mark.parametrize(
    ("uid", "threads", "variables"),
    [(64_211, 1, {}), (64_212, 2, {}), (64_213, 20, {"RAYON_NUM_THREADS": "64"})],
)
def test_models_are_signed_verified_and_stored_with_few_threads(
    as_stranger: As, model: Path, work: Path, uid: int, threads: int, variables: dict[str, str]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (work / "ec.pub").write_bytes(key.public_key().public_bytes(*public))
    signing = {"EC": key.private_bytes(*form).decode(), "ED": KEY.to_pem().decode()}
    for arguments in (
        ("verify", "model", "--key", "alice.pub"),
        ("sign", "model", "--key", "env:ED", "--output", "again.sig"),
        ("sign", "model", "--oms-key", "env:EC"),
        ("verify", "model", "--signature", "model.oms.sig", "--key", "ec.pub"),
        ("store", "add", "model/a", "--name", "a"),
        ("store", "verify"),
    ):
        data = {"XDG_DATA_HOME": str(work / "data")}
        done = as_stranger("pacha", *arguments, uid=uid, threads=threads, **variables, **signing, **data)
        assert (done.returncode, done.stderr) == (0, ""), arguments


@pytest.mark.parametrize("kib", [30_000, 60_000, 100_000])
@pytest.mark.parametrize(
    "arguments", [("verify", "model", "--key", "alice.pub"), ("sign", "model", "--key", "alice.key"), ("hash", "model")]
)
def test_too_little_memory_is_success_or_an_error_with_its_cause(
    batuta: Run, model: Path, work: Path, arguments: tuple[str, ...], kib: int
) -> None:
    (work / "model.sig").rename(work / "kept.sig")
    if arguments[0] == "verify":
        arguments = (*arguments, "--signature", "kept.sig")

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (kib * 1024,) * 2)

    done = batuta("pacha", *arguments, "--json", preexec_fn=little)
    document = answer(done)
    assert done.stderr == ""
    assert done.returncode in (0, 1)
    assert done.returncode == 0 or "memory" in json.dumps(document)
    assert "bug in batuta" not in done.stdout


@pytest.fixture(scope="session")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a locale whose encoding is ISO-8859-1, made for the test."""
    directory = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    command = [
        "localedef",
        "--no-archive",
        "-c",
        "-i",
        "POSIX",
        "-f",
        "ISO-8859-1",
        str(directory / "xx_XX.ISO-8859-1"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if not (directory / "xx_XX.ISO-8859-1").exists():
        pytest.skip(f"a locale cannot be made here: {done.stderr.strip()}")
    return {"LOCPATH": str(directory), "LC_ALL": "xx_XX.ISO-8859-1", "LANG": "xx_XX.ISO-8859-1"}


@pytest.fixture
def umlauts(work: Path) -> Path:
    path = work / "modèle"
    (path / "größe").mkdir(parents=True)
    (path / "größe" / "gewicht-ü").write_bytes(b"1")
    (path / "journal-é.log").write_bytes(b"2")
    return path


def test_a_model_has_the_same_address_and_signature_in_every_locale(
    batuta: Run, latin_1: dict[str, str], umlauts: Path, work: Path
) -> None:
    (work / "key").write_bytes(KEY.to_pem())
    (work / "key").chmod(0o600)
    (work / "alice.pub").write_bytes(KEY.verifying_key.to_pem())
    plain = batuta("pacha", "hash", umlauts.name, code=0).stdout
    assert plain.split()[0] == str(content_address(umlauts))
    assert batuta("pacha", "hash", umlauts.name, env=latin_1, code=0).stdout == plain
    sign = ("pacha", "sign", umlauts.name, "--key", "key", "--identity", "zoë", "--ignore", "journal-é.log")
    batuta(*sign, env=latin_1, code=0)
    verify = ("pacha", "verify", umlauts.name, "--key", "alice.pub", "--identity", "zoë", "--name", "modèle", "--json")
    for env in ({}, latin_1):
        [row] = answer(batuta(*verify, env=env, code=0))["result"]
        assert row["ignored"] == ["journal-é.log"]


def test_the_library_reads_names_as_utf_8_in_every_locale(
    environment: dict[str, str], latin_1: dict[str, str], umlauts: Path, work: Path
) -> None:
    script = (
        "import sys\nfrom batuta_cli.pacha.hashing import content_address\n"
        "from batuta_cli.pacha.ignoring import files_left_out\nfrom batuta_cli.pacha.signing import model_name\n"
        "assert sys.getfilesystemencoding() != 'utf-8'\n"
        "path = sys.argv[1]\n"
        "left_out = files_left_out(path, ['gr\\xf6\\xdfe'])\n"
        "print(content_address(path, ignore=['*.log']), ascii(left_out), ascii(model_name(path)))"
    )
    python = str(Path(BATUTA).with_name("python"))
    done = subprocess.run(
        [python, "-c", script, str(umlauts)], env=environment | latin_1, cwd=work, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    address = content_address(umlauts, ignore=["*.log"])
    assert done.stdout == f"{address} ('gr\\xf6\\xdfe/gewicht-\\xfc',) 'mod\\xe8le'\n"
