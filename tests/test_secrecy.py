"""What is a secret by its shape, what is not, and that core errors never show a private key."""

import base64
from pathlib import Path

import pytest

from batuta_cli.errors import BatutaError
from batuta_cli.files import display, open_regular
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.secrecy import NOT_SHOWN, Withheld, is_key, is_withheld, names_a_file

PEM = SigningKey.generate("x").to_pem().decode()

HARMLESS = [
    "model.gguf",
    "meta-llama/Llama-3.3-70B-Instruct-Turbo-Free-Tier-2026",
    "models--TheBloke--Mistral-7B-Instruct-v0.2-GGUF/snapshots/main",
    "/data/checkpoints/step_000100000/consolidated/model-00001-of-00030.safetensors",
    "blake3:" + "ab" * 32,
    "sha256:" + "01" * 32,
    "ed25519:" + base64.b64encode(bytes(range(32))).decode(),
    "550e8400-e29b-41d4-a716-446655440000",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "alice@example.com",
    "https://api.example.com:8443/v1",
    "env:SIGNING_PRIVATE_KEY",
    "my_private_key.pem",
    "sliding-window",
    "x" * 255,
    "",
]


@pytest.mark.parametrize("value", HARMLESS)
def test_ordinary_values_are_repeated(value: str) -> None:
    assert not is_withheld(value)
    assert not is_key(value)
    assert display(value) == value
    assert Withheld([value]).redact(f"error: {value!r} is unknown") == f"error: {value!r} is unknown"


def test_a_core_error_about_a_key_in_place_of_a_path_does_not_show_it() -> None:
    for value in (PEM, base64.b64encode(PEM.encode()).decode(), PEM.replace("\n", "\\n")):
        assert display(value) == NOT_SHOWN
        with pytest.raises(BatutaError) as raised:
            open_regular(value)
        assert raised.value.message.startswith(NOT_SHOWN)


def test_a_secret_is_taken_out_however_it_is_escaped_quoted_cut_off_or_surrounded() -> None:
    secret = "first line of it\nsecond line: 'quoted' \"twice\" \\ ü"
    withheld = Withheld([secret])
    for text in (secret, repr(secret), ascii(secret), display(secret), secret.replace("second", "SECOND")):
        assert "second" not in withheld.redact(f"error: {text}: no such file").lower()
    sentence = "a long text of many short words, none of which would betray it. " * 5
    assert Withheld([sentence]).redact(f"not known: {sentence[:60]!r}") == f"not known: '{NOT_SHOWN}'"
    word = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4"
    assert Withheld([word]).redact(f"no such file {word[5:40]!r}.sig") == f"no such file '{NOT_SHOWN}'.sig"


def test_messages_stay_readable_beside_a_long_text() -> None:
    text = "the configuration of the environment is not set in the tokenizer\n" * 20
    message = "the environment variable MODEL_KEY is not set, see the configuration"
    assert Withheld([text]).redact(message) == message


def test_data_is_redacted_in_every_place() -> None:
    secret = "x" * 300
    assert Withheld([secret]).redact_all({"a": [secret, 1, None], secret: (True,)}) == {
        "a": [NOT_SHOWN, 1, None],
        NOT_SHOWN: [True],
    }


def test_the_name_of_a_password_file_is_told_from_a_password_by_its_ending_or_an_existing_directory(
    tmp_path: Path,
) -> None:
    for name in ("pw.txt", "model.pass", f"{tmp_path}/hunter2", "/run/secrets/model.key"):
        assert names_a_file(name)
    for password in ("hunter2", "Pass.word", "ab/cd", "/nowhere-at-all/x", PEM, "tr0ub4dor&3.w0rd"):
        assert not names_a_file(password)


def test_hostile_lengths_are_judged_in_linear_time() -> None:
    for value in ("A" * 1_000_000, "://" * 300_000, "-----BEGIN " * 50_000, "a:" * 500_000, " " * 1_000_000):
        assert is_withheld(value)
        assert NOT_SHOWN in Withheld([value]).redact(f"error: {value[:5000]}") or not value.strip()
