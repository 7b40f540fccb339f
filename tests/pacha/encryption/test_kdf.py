import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from batuta_cli.errors import InvalidInputError, OperationError
from batuta_cli.pacha.encryption import kdf
from batuta_cli.pacha.encryption.kdf import KdfParameters, derive

GIB_IN_KIB = 1024 * 1024


def test_the_key_is_that_of_another_argon2id() -> None:
    # argon2-cffi 25.1: hash_secret_raw("contraseña", bytes(range(32)), 2, 64, 3, 32, Type.ID, version=0x13)
    expected = "6ba7c0b56e4002ace7be90e963af3ffcb309832f5d61c48d8e45d65077850283"
    assert derive("contraseña".encode(), bytes(range(32)), KdfParameters(64, 2, 3)).hex() == expected


def test_the_defaults_are_those_of_version_1() -> None:
    parameters = KdfParameters()
    assert (parameters.memory_kib, parameters.passes, parameters.lanes) == (65_536, 3, 4)


@pytest.mark.parametrize(
    ("memory", "passes", "lanes"),
    [
        (0, 3, 4),
        (31, 3, 4),  # RFC 9106 asks for 8 KiB a lane
        (GIB_IN_KIB + 1, 3, 4),
        (100 * GIB_IN_KIB, 3, 4),
        (2**32 - 1, 3, 4),
        (65_536, 0, 4),
        (65_536, 17, 4),
        (65_536, 2**32 - 1, 4),
        (65_536, 3, 0),
        (65_536, 3, 17),
    ],
)
def test_costs_out_of_bounds_cannot_be_written_down(memory: int, passes: int, lanes: int) -> None:
    with pytest.raises(InvalidInputError, match="key derivation with"):
        KdfParameters(memory, passes, lanes)


@pytest.mark.parametrize(("memory", "passes", "lanes"), [(8, 1, 1), (128, 16, 16), (GIB_IN_KIB, 1, 1)])
def test_costs_at_their_bounds_are_allowed(memory: int, passes: int, lanes: int) -> None:
    KdfParameters(memory, passes, lanes)


def test_more_memory_than_allowed_is_refused_with_the_option_that_allows_it() -> None:
    KdfParameters(memory_kib=262_144).check_memory(262_144)
    with pytest.raises(InvalidInputError, match="262,145 KiB") as refused:
        KdfParameters(memory_kib=262_145).check_memory(262_144)
    assert refused.value.hint is not None
    assert refused.value.hint.endswith("--allow-kdf-memory 257")


@pytest.mark.parametrize(
    ("failure", "message"),
    [(MemoryError(), "65,536 KiB are needed"), (UnsupportedAlgorithm("argon2id"), "has no Argon2id")],
)
def test_what_the_machine_cannot_do_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    def refuse(**parameters: object) -> None:
        raise failure

    monkeypatch.setattr(kdf, "Argon2id", refuse)
    with pytest.raises(OperationError, match=message):
        derive(b"password", bytes(32), KdfParameters())
