"""A secret that was given in a wrong place is never repeated: every command, option and positional is tried."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from batuta_cli.cli.app import app
from tests.cli.support import answer
from tests.conftest import Run

Case = tuple[list[str], dict[str, str]]
Shown = tuple[int, str, str]
RunMany = Callable[[Sequence[Case]], list[Shown]]

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()
SEED = bytes.fromhex(
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
)  # RFC 8032 7.1, one bit changed
KEY = Ed25519PrivateKey.from_private_bytes(SEED)
PEM_KEY = KEY.private_bytes(PEM, PKCS8, PLAIN).decode()
OPENSSH_KEY = KEY.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, PLAIN).decode()
PACHA_KEY = (
    "-----BEGIN PACHA ED25519 SIGNING KEY-----\n"
    f"{base64.b64encode(SEED).decode()}\n-----END PACHA ED25519 SIGNING KEY-----\n"
)
RSA_KEY = rsa.generate_private_key(65537, 2048).private_bytes(
    PEM, serialization.PrivateFormat.TraditionalOpenSSL, PLAIN
)
EC_KEY = ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"pw"))
PASSWORD = "Tr0ub4dor&3 c4nary"


def body(pem: str) -> str:
    """The Base64 of a PEM in one line, without its first and last line."""
    return "".join(line for line in pem.splitlines() if "-----" not in line)


KEYS = {
    "a PEM": PEM_KEY,
    "an OpenSSH key": OPENSSH_KEY,
    "a PEM of the Rust crate": PACHA_KEY,
    "an RSA key": RSA_KEY.decode(),
    "an encrypted key": EC_KEY.decode(),
    "a PEM with literal line ends": PEM_KEY.replace("\n", "\\n"),
    "a PEM in quotes": json.dumps(OPENSSH_KEY),
    "a PEM in Base64": base64.b64encode(PEM_KEY.encode()).decode(),
    "a PEM in Base64 for addresses": base64.urlsafe_b64encode(OPENSSH_KEY.encode()).decode(),
    "a PEM in Base64 twice": base64.b64encode(base64.b64encode(PEM_KEY.encode())).decode(),
    "a PEM in hexadecimal": PEM_KEY.encode().hex(),
    "the body of a PEM": body(PEM_KEY),
    "the body of an OpenSSH key": body(OPENSSH_KEY),
    "a PEM behind env:": f"env:{PEM_KEY}",
}
BROAD = ("a PEM", "a PEM with literal line ends", "a PEM in Base64", "the body of a PEM")
"""The forms that are given to every parameter; the others are told apart from harmless text by the same function."""


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every command with its words."""

    def walk(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
        yield words, command
        if hasattr(command, "list_commands"):
            for name in command.list_commands(None):
                yield from walk(command.get_command(None, name), [*words, name])

    return walk(typer.main.get_command(app), [])


COMMANDS = list(commands())
LEAVES = [(words, command) for words, command in COMMANDS if not hasattr(command, "list_commands")]


def positionals(command: Any, replaced: Any = None, value: str = "") -> list[str]:
    """A value for each required positional: an existing file, or `value` in the place of the one to be replaced."""
    found = [p for p in command.params if p.param_type_name == "argument" and (p.required or p is replaced)]
    return [value if p is replaced else "model" for p in found]


def takes_values(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "argument" or not p.is_flag]


def lines_with(secret: str) -> Iterator[list[str]]:
    """The secret in every place of every command line."""
    for words, command in LEAVES:
        for parameter in takes_values(command):
            if parameter.param_type_name == "argument":
                yield [*words, "--", *positionals(command, parameter, secret)]
                if not secret.startswith("-"):
                    yield [*words, *positionals(command, parameter, secret)]
                continue
            for option in parameter.opts:
                if option.startswith("--"):
                    yield [*words, *positionals(command), option, secret]
                    yield [*words, *positionals(command), f"{option}={secret}"]
                else:
                    yield [*words, *positionals(command), option + secret]
        yield [*words, *positionals(command), "--", *(["x"] * 3), secret]
        yield [*words, *positionals(command), f"--{secret}"]
        yield [*words, *positionals(command), f"--json={secret}"]
    for words, command in COMMANDS:
        if hasattr(command, "list_commands"):
            yield [*words, secret]
            yield [*words, f"-{secret}"]


@pytest.fixture
def run_many(environment: dict[str, str], work: Path) -> RunMany:
    """Run command lines one after the other, in one process without a terminal."""
    for name in ("model", "model.enc"):
        (work / name).write_bytes(b"weights")

    def run(cases: Sequence[Case]) -> list[Shown]:
        file = work.parent / "shown.json"
        done = subprocess.run(
            [sys.executable, "-m", "tests.cli.run_many", str(file)],
            input=json.dumps(cases),
            env=environment | {"MODEL_KEY": "m", "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "0"},
            cwd=work,
            capture_output=True,
            text=True,
            timeout=600,
            start_new_session=True,
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return [(status, out, err) for status, out, err in json.loads(file.read_text())]

    return run


def fragments(secret: str) -> set[str]:
    """All that is 12 characters long in the words of a secret which are no common words, in lower case."""
    plain = re.sub(r"-----(BEGIN|END) [A-Z0-9 ]+-----|\\n|env:", "\n", secret)
    return {
        line[i : i + 12].lower() for line in plain.split("\n") for i in range(len(line) - 11) if len(line.strip()) > 15
    }


def leaks(secret: str, text: str) -> set[str]:
    low = text.lower()
    return {piece for piece in fragments(secret) if piece in low}


def repeats_a_conversation(words: Sequence[str], shown: Shown) -> bool:
    """Whether a result is the text of a conversation, which is what the command is for."""
    return shown[0] == 0 and list(words[:2]) in (["serve", "template"], ["serve", "context"])


@pytest.mark.parametrize("form", BROAD)
def test_no_command_repeats_a_private_key(form: str, run_many: RunMany) -> None:
    secret = KEYS[form]
    cases: list[Case] = []
    for line in lines_with(secret):
        cut = line.index("--") if "--" in line else len(line)
        cases.append((line, {"BATUTA_DEBUG": "1"}))
        cases.append(([*line[:cut], "--json", *line[cut:]], {"BATUTA_DEBUG": "1"}))
    assert len(cases) > 500
    told = 0
    for (line, _), shown in zip(cases, run_many(cases), strict=True):
        output = shown[2] if repeats_a_conversation(line, shown) else shown[1] + shown[2]
        assert not leaks(secret, output), f"{[word[:60] for word in line]}\n{output}"
        if "--json" in line:
            document = json.loads(shown[1])
            assert document["ok"] is (shown[0] == 0)
            told += "was given a private key" in (document["error"] or {}).get("message", "")
    assert told > 50


def test_the_fragments_of_a_secret_are_found_where_they_are() -> None:
    for secret in KEYS.values():
        assert leaks(secret, f"error: {secret!r}: no such file")
        assert not leaks(secret, "error: (value not shown): no such file or directory")


PLACES = (
    ("pacha", "sign", "model", "--key"),
    ("pacha", "keys", "import", "--"),
    ("pacha", "verify", "model", "--key"),
    ("pacha", "trust", "add", "x", "--"),
    ("pacha", "encrypt", "model", "--password-file"),
    ("pacha", "encrypt", "model", "--password-env"),
    ("config", "set", "pacha.default_key", "--"),
)


@pytest.mark.parametrize("form", KEYS)
def test_a_key_in_any_form_is_refused_and_not_repeated(form: str, run_many: RunMany) -> None:
    cases: list[Case] = [
        ([*line[:2], *flags, *line[2:], KEYS[form]], {"BATUTA_DEBUG": "1"})
        for line in PLACES
        for flags in ((), ("--json",))
    ]
    for (line, _), (status, out, err) in zip(cases, run_many(cases), strict=True):
        assert status == 2, line
        assert not leaks(KEYS[form], out + err)


@pytest.mark.parametrize("line", PLACES)
def test_the_installed_command_does_not_repeat_a_key_either(batuta: Run, work: Path, line: tuple[str, ...]) -> None:
    (work / "model").write_bytes(b"weights")
    for flags in ((), ("--json",)):
        done = batuta(*line[:2], *flags, *line[2:], PEM_KEY, env={"BATUTA_DEBUG": "1"}, code=2)
        assert not leaks(PEM_KEY, done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (("pacha", "sign", "f", "--key", PEM_KEY), "--key env:VAR reads the key from a variable, --key - from stdin"),
        (("pacha", "keys", "import", "--", PEM_KEY), "env:VAR reads the key from a variable, - from stdin"),
        (("pacha", "trust", "add", "x", "--", PEM_KEY), "batuta pacha sign --key FILE, env:VAR or -"),
        (("pacha", "encrypt", "f", "--password-env", PASSWORD), "give the variable's NAME: --password-env MODEL_KEY"),
        (("pacha", "sign", "f", "--passphrase-env", PASSWORD), "give the variable's NAME: --passphrase-env MODEL_KEY"),
        (("pacha", "encrypt", "model", "--password-file", PASSWORD), "--password-file takes the NAME of a file"),
        (
            ("pacha", "encrypt", "model", "--password-env", "hunter2"),
            "--password-env takes the NAME of a variable that holds",
        ),
        (("pacha", "sign", "f", "--key", "env:hunter2"), "give the NAME of a variable that is set, not a value"),
    ],
)
def test_the_hint_says_what_the_option_wants(batuta: Run, work: Path, line: tuple[str, ...], hint: str) -> None:
    (work / "model").write_bytes(b"weights")
    error = answer(batuta(*line[:2], "--json", *line[2:]))["error"]
    assert hint in error["hint"]


PASSWORD_PLACES = (
    ("pacha", "encrypt", "model", "--password-env"),
    ("pacha", "decrypt", "model.enc", "--password-env"),
    ("pacha", "encrypt", "model", "--password-file"),
    ("pacha", "decrypt", "model.enc", "--password-file"),
    ("pacha", "sign", "model", "--passphrase-env"),
    ("pacha", "keygen", "--passphrase-env"),
    ("pacha", "keys", "import", "model", "--passphrase-env"),
    ("pacha", "encrypt", "model"),
    ("pacha", "inspect", "model"),
    ("pacha", "keygen"),
    ("config", "path"),
    ("config", "set", "pacha.default_key", "x"),
)


@pytest.mark.parametrize("password", [PASSWORD, "hunter2", "correct-horse-battery", "ab/cd+Zz0", "Pass.word"])
def test_a_password_in_place_of_a_name_or_as_a_stray_argument_is_not_repeated(password: str, run_many: RunMany) -> None:
    cases: list[Case] = [
        ([*line, password, *flags], {"BATUTA_DEBUG": "1"}) for line in PASSWORD_PLACES for flags in ((), ("--json",))
    ]
    for (line, _), (status, out, err) in zip(cases, run_many(cases), strict=True):
        assert status in (1, 2), line
        assert password not in out + err


def test_names_of_password_files_and_variables_are_repeated_where_they_can_be_told_from_passwords(
    batuta: Run, work: Path
) -> None:
    (work / "model").write_bytes(b"weights")
    (work / "secrets").mkdir()
    for name in ("key.txt", "secrets/model-pw", "./pw"):
        assert f"{name}: no such file" in batuta("pacha", "encrypt", "model", "--password-file", name, code=1).stderr
    shown = batuta("pacha", "encrypt", "model", "--password-env", "MODEL_PW", code=2).stderr
    assert "the environment variable MODEL_PW is not set" in shown


SEEDS = [SEED.hex(), SEED.hex().upper(), base64.b64encode(SEED).decode(), base64.urlsafe_b64encode(SEED).decode()[:-1]]
LONG = "x" * 256


@pytest.mark.parametrize(
    "secret",
    [
        *SEEDS,
        base64.b64encode(SEED + SEED[::-1]).decode(),
        "gsk_abcdefghijklmnopqrstuvwxyz0123456789",
        "postgresql://batuta:hunter2hunter2@db/ledger",
        LONG,
        "one line\nand another one, 20 characters",
        b"one line\\u2028".decode("unicode_escape") * 16,
    ],
)
def test_what_may_be_a_secret_by_its_shape_is_not_repeated(secret: str, run_many: RunMany) -> None:
    lines = [
        ["pacha", "hash", secret],
        ["pacha", "verify", "model", "--digest", secret],
        ["pacha", "verify", "model", "--signature", secret],
        ["pacha", "sign", "model", "--identity", secret],
        ["pacha", "sign", "model", "--format", secret],
        ["pacha", "sign", "model", "--expires", secret],
        ["pacha", "keys", "export", secret],
        ["pacha", "trust", "remove", secret],
        ["pacha", "store", "path", secret],
        ["config", "get", secret],
        ["serve", "keys", "revoke", secret],
        ["serve", "template", "--format", secret],
        ["serve", "route", "--privacy", secret],
        [secret],
    ]
    cases: list[Case] = [([*line, *flags], {"BATUTA_DEBUG": "1"}) for line in lines for flags in ((), ("--json",))]
    for (line, _), (status, out, err) in zip(cases, run_many(cases), strict=True):
        assert status != 0
        pieces = {secret[i : i + 12].lower() for i in range(len(secret) - 11)}
        assert not {p for p in pieces if p in (out + err).lower()}, f"{line}\n{out}{err}"


@pytest.mark.parametrize(
    "variable", ["BATUTA_BUDGET_DAILY_BUDGET_USD", "BATUTA_PACHA_DEFAULT_KEY", "BATUTA_PACHA_NOPE"]
)
@pytest.mark.parametrize("form", KEYS)
def test_no_variable_of_the_configuration_is_repeated_when_it_holds_a_key(
    batuta: Run, variable: str, form: str
) -> None:
    done = batuta("config", "show", env={variable: KEYS[form], "BATUTA_DEBUG": "1"}, code=2)
    assert not leaks(KEYS[form], done.stdout + done.stderr)


def test_a_key_that_a_shell_took_apart_into_words_is_not_repeated(batuta: Run, work: Path) -> None:
    (work / "f").write_bytes(b"weights")
    for secret in (PEM_KEY, OPENSSH_KEY):
        for flags in ((), ("--json",)):
            done = batuta("pacha", "sign", "f", *flags, "--key", *secret.split(), env={"BATUTA_DEBUG": "1"})
            assert done.returncode != 0
            for line in body(secret), *secret.split():
                if len(line) > 8:
                    assert line not in done.stdout + done.stderr


def test_a_file_that_exists_is_named_whatever_its_name_looks_like(batuta: Run, work: Path) -> None:
    for name in (SEED.hex(), "two\nlines", f"{'d' * 200}/{'f' * 200}", "my PRIVATE KEY notes"):
        file = work / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"weights")
        done = batuta("pacha", "hash", "--json", name, code=0)
        assert answer(done)["result"][0]["path"] == name
        shown = batuta("pacha", "verify", name, code=3).stderr
        assert name.replace("\n", "\\n") in shown


def test_the_messages_of_a_conversation_may_hold_anything_and_come_out_as_they_are(batuta: Run) -> None:
    for text in (PEM_KEY, LONG, "two\nlines"):
        done = batuta("serve", "template", "--format", "chatml", "--user", text.strip(), "--json", code=0)
        assert text.strip() in answer(done)["result"]["prompt"]


def test_a_public_key_a_digest_and_a_variable_are_no_secrets(batuta: Run, work: Path) -> None:
    (work / "model").write_bytes(b"weights")
    public = "ed25519:" + base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
    assert public in batuta("pacha", "trust", "add", "alice", public, "--json", code=0).stdout
    digest = "blake3:" + SEED.hex()
    assert digest in batuta("pacha", "verify", "model", "--digest", digest, code=3).stderr
    shown = batuta("pacha", "sign", "model", "--key", "env:SIGNING_PRIVATE_KEY", code=2).stderr
    assert "SIGNING_PRIVATE_KEY is not set" in shown


def test_every_option_for_the_name_of_a_variable_is_marked_as_one() -> None:
    named = {
        parameter.metavar
        for _, command in LEAVES
        for parameter in takes_values(command)
        if any(option.endswith("-env") for option in parameter.opts)
    }
    assert named == {"VAR"}
    assert not os.environ.get("BATUTA_DEBUG")
