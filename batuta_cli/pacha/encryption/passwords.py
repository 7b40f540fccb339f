"""Reads a password from a value, a file or an environment variable (the prompt is in `cli`).

A password is UTF-8 of 1 byte to 64 KiB. No message and no exception contains it.
"""

import os

from batuta_cli.errors import InvalidInputError, NotFoundError, OperationError, UsageError
from batuta_cli.files import StrPath, display, errors_named, open_stream
from batuta_cli.secrecy import NOT_SHOWN, called_variable, names_a_file

Password = str | bytes

MAX_PASSWORD_BYTES = 64 * 1024


def normalise(password: Password, *, name: str = "the password") -> bytes:
    """`password` as the bytes that the key is derived from; nothing is trimmed, folded or composed.

    Args:
        password: text, or its UTF-8 encoding.
        name: what a message calls it.

    Raises `InvalidInputError` when it is empty, longer than 64 KiB, or not UTF-8.
    """
    encoded = _utf8(password)
    if encoded is None:
        raise InvalidInputError(f"{name} is not valid UTF-8")
    if not encoded:
        raise InvalidInputError(f"{name} is empty")
    if len(encoded) > MAX_PASSWORD_BYTES:
        raise InvalidInputError(f"{name} is longer than {MAX_PASSWORD_BYTES:,} bytes")
    return encoded


def _utf8(password: Password) -> bytes | None:
    # A UnicodeError holds the whole text, so it must not become the context of the reported error.
    try:
        if isinstance(password, str):
            return password.encode("utf-8")
        password.decode("utf-8")
    except UnicodeError:
        return None
    return bytes(password)


def password_from_file(path: StrPath) -> bytes:
    r"""The password in a file, a FIFO or a device, such as bash's `<(pass show model)`.

    Exactly one trailing `\n` or `\r\n` is dropped. A blank before it belongs to the password.

    Raises `NotFoundError` or `OperationError` when it cannot be read, and as `normalise`. When there is no such file,
    the name may be the password itself; the error repeats it only as `secrecy.names_a_file` allows.
    """
    try:
        descriptor = open_stream(path)
    except (OperationError, InvalidInputError):
        if os.path.lexists(path) or names_a_file(os.fsdecode(path)):
            raise
        descriptor = None
    if descriptor is None:  # not raised above, where the error that has the name would be its context
        raise NotFoundError(
            f"the password file does not exist {NOT_SHOWN}",
            hint="--password-file takes the NAME of a file that holds the password, not the password",
        )
    try:
        return password_from_descriptor(descriptor, path)
    finally:
        os.close(descriptor)


def password_from_descriptor(descriptor: int, name: StrPath) -> bytes:
    """As `password_from_file`, from an open descriptor, read to its end. `name` names the input in messages."""
    limit = MAX_PASSWORD_BYTES + len(b"\r\n") + 1  # one byte above the limit is enough to notice that it is too long
    data = b""
    with errors_named(name):
        while len(data) < limit and (piece := os.read(descriptor, limit - len(data))):
            data += piece
    data = data.removesuffix(b"\r\n") if data.endswith(b"\r\n") else data.removesuffix(b"\n")
    return normalise(data, name=f"the password in {display(name)}")


def password_from_env(name: str) -> bytes:
    """The password in the environment variable `name`, as it is.

    Raises `UsageError` when the variable is unset or empty, and as `normalise`.
    """
    value = os.environ.get(name)
    if not value:
        called = called_variable(name)
        hint = f"put the password in {name}, or use --password-file FILE"
        if NOT_SHOWN in called:
            hint = "--password-env takes the NAME of a variable that holds the password, not the password"
        raise UsageError(f"{called} {'is not set' if value is None else 'is empty'}", hint=hint)
    return normalise(value, name=f"the password in the environment variable {display(name)}")
