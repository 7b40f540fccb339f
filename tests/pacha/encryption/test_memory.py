import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batuta_cli.errors import DecryptionError, InvalidInputError
from batuta_cli.pacha.encryption import kdf
from batuta_cli.pacha.encryption.memory import decrypt_model, encrypt_model

from . import reference
from .helpers import PASSWORD, SECRET, flipped, noise, sealed

pytestmark = pytest.mark.usefixtures("cheap")


@given(data=st.binary(max_size=10_000), password=st.text(min_size=1, max_size=50), version=st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_what_is_encrypted_decrypts(data: bytes, password: str, version: int) -> None:
    try:
        password.encode()
    except UnicodeEncodeError:
        return
    assert decrypt_model(encrypt_model(data, password, format=version), password) == data


def test_version_1_is_the_default() -> None:
    made = encrypt_model(b"model", PASSWORD)
    assert reference.open_1(made, SECRET, reference.CHEAP) == b"model"


def test_two_encryptions_of_the_same_share_nothing() -> None:
    one, other = encrypt_model(bytes(64), PASSWORD), encrypt_model(bytes(64), PASSWORD)
    assert one[9:41] != other[9:41]
    assert one[41:53] != other[41:53]
    assert one[53:] != other[53:]


def test_every_damaged_byte_of_version_1_is_found() -> None:
    data = sealed(1, b"a model of some bytes")
    for position in range(len(data)):
        with pytest.raises(InvalidInputError if position < 9 else DecryptionError):
            decrypt_model(flipped(data, position), PASSWORD)


def test_every_cut_of_version_1_is_found() -> None:
    data = sealed(1, b"a model of some bytes")
    for length in range(len(data)):
        with pytest.raises(InvalidInputError if length < 53 else DecryptionError):
            decrypt_model(data[:length], PASSWORD)
    with pytest.raises(DecryptionError):
        decrypt_model(data + b"\0", PASSWORD)


def test_wrong_password_and_damage_are_one_message() -> None:
    data = sealed(1, noise(100))
    messages = set()
    for attempt, password in ((data, "wrong"), (flipped(data, 9), PASSWORD), (flipped(data, 60), PASSWORD)):
        with pytest.raises(DecryptionError) as refused:
            decrypt_model(attempt, password)
        messages.add((refused.value.message, refused.value.hint, refused.value.exit_code))
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("position", "replacement"),
    [
        (8, b"\x00"),
        (8, b"\x03"),
        (8, b"\xff"),
        (53, b"\x02"),
        (54, b"\x06\x40\x00\x00"),  # 100 GiB
        (54, b"\x00\x04\x00\x01"),  # a KiB above 256 MiB
        (54, b"\x00\x00\x00\x00"),
        (58, b"\x00\x00\x00\x00"),
        (62, b"\x00\x00\x00\x00"),
        (66, b"\x0b"),
        (66, b"\x19"),
    ],
)
def test_a_hostile_header_is_refused_before_any_key_is_derived(
    monkeypatch: pytest.MonkeyPatch, position: int, replacement: bytes
) -> None:
    data = sealed(2, b"model")

    def unreachable(**parameters: object) -> None:
        raise AssertionError("a key was derived")

    monkeypatch.setattr(kdf, "Argon2id", unreachable)
    with pytest.raises(InvalidInputError):
        decrypt_model(data[:position] + replacement + data[position + len(replacement) :], PASSWORD)


def test_more_memory_for_the_key_can_be_allowed() -> None:
    costs = (262_145, 1, 1)
    data = reference.seal_2(b"model", SECRET, bytes(32), bytes(12), costs)
    with pytest.raises(InvalidInputError, match="asks for 262,145 KiB"):
        decrypt_model(data, PASSWORD)
    assert decrypt_model(data, PASSWORD, allow_kdf_memory_kib=262_145) == b"model"
