"""Derives a key from a password: Argon2id version 1.3 (RFC 9106) with bounded costs.

The parameters of version 1 are fixed. Version 2 has them in its header. `KdfParameters` checks them when it is made,
so that a hostile file cannot ask for more memory or time than the bounds.
"""

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from batuta_cli.errors import InvalidInputError, OperationError
from batuta_cli.faults import NoThreadError
from batuta_cli.limits import can_start

KEY_SIZE = 32
"""Bytes of a derived key."""

SALT_SIZE = 32
"""Bytes of salt in a header."""

DEFAULT_MEMORY_LIMIT_KIB = 256 * 1024
"""The memory in KiB that a file may ask for unless the user allows more."""

MEMORY_CEILING_KIB = 1024 * 1024
"""The memory in KiB that a user can allow at most."""

_MAX_PASSES = 16
_MAX_LANES = 16


@dataclass(frozen=True, slots=True)
class KdfParameters:
    """The cost of one guess. The defaults are those of version 1: about 0.2 s and 64 MiB.

    Raises `InvalidInputError` for a cost outside of 8·lanes … 1 GiB of memory, 1 … 16 passes, 1 … 16 lanes.
    """

    memory_kib: int = 65_536
    passes: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.passes <= _MAX_PASSES:
            raise InvalidInputError(f"key derivation with {self.passes} passes, which must be 1 to {_MAX_PASSES}")
        if not 1 <= self.lanes <= _MAX_LANES:
            raise InvalidInputError(f"key derivation with {self.lanes} lanes, which must be 1 to {_MAX_LANES}")
        if not 8 * self.lanes <= self.memory_kib <= MEMORY_CEILING_KIB:  # the lower bound: RFC 9106, section 3.1
            raise InvalidInputError(
                f"key derivation with {self.memory_kib:,} KiB of memory, "
                f"which must be {8 * self.lanes} to {MEMORY_CEILING_KIB:,}"
            )

    def check_memory(self, limit_kib: int) -> None:
        """Raise `InvalidInputError` when the memory is more than the user allows."""
        if self.memory_kib > limit_kib:
            raise InvalidInputError(
                f"key derivation asks for {self.memory_kib:,} KiB of memory, {limit_kib:,} are allowed",
                hint=f"if you trust the file, allow it: --allow-kdf-memory {-(-self.memory_kib // 1024)}",
            )


def derive(password: bytes, salt: bytes, parameters: KdfParameters) -> bytes:
    """The 32-byte Argon2id key of `password`.

    Raises `OperationError` when there is not enough memory, `NoThreadError` when the threads cannot be started.
    """
    try:
        kdf = Argon2id(
            salt=salt,
            length=KEY_SIZE,
            iterations=parameters.passes,
            lanes=parameters.lanes,
            memory_cost=parameters.memory_kib,
        )
        return kdf.derive(password)
    except MemoryError:  # which `cryptography` also raises when a lane's thread cannot be started
        if not can_start(parameters.lanes):
            raise NoThreadError(
                f"cannot start the {parameters.lanes} threads that derive the key",
                hint="raise the limit: ulimit -u, the container's pids limit",
            ) from None
        raise OperationError(f"not enough memory to derive the key: {parameters.memory_kib:,} KiB are needed") from None
    except UnsupportedAlgorithm:
        raise OperationError(
            "this build of the cryptography package has no Argon2id",
            hint="pip install --force-reinstall cryptography  # the wheel from PyPI brings its own OpenSSL",
        ) from None
