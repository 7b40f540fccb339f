"""Own key pairs on disk: `keys/<identity>.key` (private, mode 0600) and `.pub`.

A private key file that group or others can read is refused; the mode is that of the open descriptor (`fstat`). Keys
are created exclusively: an existing pair is replaced only with `force`.
"""

import os
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from batuta_cli import paths
from batuta_cli.errors import InvalidInputError, NotFoundError, OutputExistsError, UnsafeFileError, UsageError
from batuta_cli.files import (
    StrPath,
    atomic_output,
    display,
    errors_named,
    open_stream,
    read_beyond,
    read_limited,
    write_file,
)
from batuta_cli.pacha.keys import KEY_FILE_LIMIT, SigningKey, VerifyingKey, check_identity, is_encrypted_key
from batuta_cli.pacha.oms.eckeys import AnyKey, parse_public_key, parse_trusted

_STEM_LIMIT = 220  # bytes of 255, for ".key" and the hidden name that a file has while it is written
_PLAIN = re.compile(rb"[A-Za-z0-9@._+-]")


@dataclass(frozen=True)
class OwnKey:
    """A key pair in the keys directory."""

    identity: str
    path: Path
    public: VerifyingKey
    encrypted: bool


def file_stem(identity: str) -> str:
    """The file name of an identity without its ending.

    Every byte outside `[A-Za-z0-9@._+-]`, and a leading dot or dash, stands as %XX, so that no identity can leave
    the directory, hide, or look like an option.

    Raises `InvalidInputError` as `check_identity`, and when that is more than a file name can hold.
    """
    raw = check_identity(identity).encode()
    stem = "".join(
        chr(byte) if _PLAIN.fullmatch(bytes([byte])) and not (i == 0 and byte in b".-") else f"%{byte:02X}"
        for i, byte in enumerate(raw)
    )
    if len(stem) > _STEM_LIMIT:
        raise InvalidInputError(
            f"the identity {display(identity)} is too long for a file name, where it takes {len(stem)} bytes",
            hint="keygen --output PATH and sign --key PATH keep the key under another name",
        )
    return stem


def identity_of(stem: str) -> str:
    """The inverse of `file_stem`."""
    return unquote_to_bytes(os.fsencode(stem)).decode("utf-8", "replace")


def public_path(private: StrPath) -> Path:
    """The path of the public key that belongs to a private key file: `NAME.pub` beside `NAME.key`."""
    path = Path(private)
    return path.with_suffix(".pub") if path.suffix == ".key" else path.with_name(path.name + ".pub")


def key_path(identity: str) -> Path:
    """The private key file of an identity."""
    return paths.keys_dir() / f"{file_stem(identity)}.key"


def save_pair(
    key: SigningKey, path: Path, *, passphrase: bytes | None = None, force: bool = False
) -> tuple[Path, Path]:
    """Write a key pair and return the private and the public path.

    Raises `OutputExistsError` when either file exists and `force` is false; nothing is written then. When the public
    half cannot be written, a new private one is not left behind either.
    """
    public = public_path(path)
    if not force:
        for existing in (path, public):
            if os.path.lexists(existing):
                raise OutputExistsError(
                    f"{display(existing)}: already exists",
                    hint="--force deletes it permanently; another --identity or --output keeps it",
                )
    for half in (path, public):
        atomic_output(half, force=force)  # checks the output before the other file of the pair is replaced
    write_file(path, key.to_pem(passphrase), force=force, mode=0o600)
    try:
        write_file(public, key.verifying_key.to_pem(), force=force)
    except BaseException:
        if not force:
            path.unlink(missing_ok=True)
        raise
    return path, public


def save_own(key: SigningKey, identity: str, *, passphrase: bytes | None = None, force: bool = False) -> Path:
    """Write a key pair into the keys directory; see `save_pair`."""
    paths.private_dir(paths.keys_dir())
    return save_pair(key, key_path(identity), passphrase=passphrase, force=force)[0]


def rename_own(identity: str, new: str) -> Path:
    """Give an own key pair another identity, and return the private key's new path.

    Raises `NotFoundError`, and `OutputExistsError` when there is a key of the new identity.
    """
    source, target = find_own(identity).path, key_path(new)
    for path in (target, public_path(target)):
        if os.path.lexists(path):
            raise OutputExistsError(f"{display(path)}: already exists", hint="choose another name")
    _move(public_path(source), public_path(target))
    _move(source, target)  # last: the name of the private key is what `find_own` looks for
    _flush(target.parent)
    return target


def remove_own(identity: str) -> Path:
    """Delete an own key pair, and return the path that the private key had. Raises `NotFoundError`."""
    path = _existing_path(identity)
    with errors_named(path):
        path.unlink()
        public_path(path).unlink(missing_ok=True)
    _flush(path.parent)
    return path


def _move(source: Path, target: Path) -> None:
    """Rename a file without replacing another one."""
    with errors_named(target):
        try:
            os.link(source, target)
        except FileExistsError:
            raise OutputExistsError(f"{display(target)}: already exists", hint="choose another name") from None
        except PermissionError:  # a file system without hard links
            source.rename(target)
            return
        source.unlink()


def _flush(directory: Path) -> None:
    with errors_named(directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_private_file(path: StrPath) -> bytes:
    """The content of a private key file, which may be a pipe.

    Raises `UnsafeFileError` when group or others may read it; `NotFoundError`, `OperationError`, `InvalidInputError`.
    """
    with os.fdopen(open_stream(path), "rb", buffering=0) as file, errors_named(path):
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            raise UnsafeFileError(
                f"{display(path)}: mode {stat.S_IMODE(mode):04o} lets others read this private key",
                hint=_hint_on_mode(path, file.fileno()),
            )
        data = read_beyond(file, KEY_FILE_LIMIT)
    if len(data) > KEY_FILE_LIMIT:
        raise InvalidInputError(f"{display(path)}: not a private key (too large)")
    return data


def _hint_on_mode(path: StrPath, descriptor: int) -> str:
    """What to do about a private key that others can read; a mounted secret cannot be changed by its user."""
    name = shlex.quote(display(path))
    read_only = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
    if read_only or os.geteuid() not in (0, os.fstat(descriptor).st_uid):
        return f"the mode cannot be changed here, so give the key on stdin:\n  --key - < {name}"
    return f"chmod 600 {name}\n  or give the key on stdin: --key - < {name}"


def read_public_file(path: StrPath) -> VerifyingKey:
    """The public key in a file. Raises as `VerifyingKey.parse` and `read_limited`."""
    return VerifyingKey.parse(read_limited(path, KEY_FILE_LIMIT), display(path))


def read_any_public_file(path: StrPath) -> AnyKey:
    """The public key in a file, Ed25519 or ECDSA. Raises as `parse_public_key` and `read_limited`."""
    return parse_public_key(read_limited(path, KEY_FILE_LIMIT), display(path))


def read_trusted_file(path: StrPath) -> AnyKey:
    """What `trust add` takes, in a file. Raises as `parse_trusted` and `read_limited`."""
    return parse_trusted(read_limited(path, KEY_FILE_LIMIT), display(path))


def list_own() -> list[OwnKey]:
    """The key pairs in the keys directory, by identity. A file that is not a key is an error."""
    return [_own_key(path) for path in _private_files()]


def _private_files() -> list[Path]:
    directory = paths.keys_dir()
    with errors_named(directory):
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return []
    return [directory / name for name in sorted(names) if name.endswith(".key")]


def _own_key(path: Path) -> OwnKey:
    public = public_path(path)
    encrypted = is_encrypted_key(read_private_file(path))
    return OwnKey(identity_of(path.stem), path, read_public_file(public), encrypted)


def find_own(identity: str) -> OwnKey:
    """The own key pair of that identity. Raises `NotFoundError`."""
    return _own_key(_existing_path(identity))


def _existing_path(identity: str) -> Path:
    path = key_path(identity)
    files = _private_files()
    if path not in files:
        have = ", ".join(display(identity_of(file.stem)) for file in files)
        raise NotFoundError(
            f"no key of {display(identity)} in {display(paths.keys_dir())}",
            hint=f"there are: {have}" if have else f"batuta pacha keygen --identity {shlex.quote(identity)}",
        )
    return path


def choose_own(configured: str | None) -> OwnKey:
    """The key to sign with by default: the configured one, else the only one.

    Raises `NotFoundError` when there is no key, `UsageError` that lists them when there are several.
    """
    if configured:
        return find_own(configured)
    keys = list_own()
    if not keys:
        raise NotFoundError("there is no key to sign with", hint="batuta pacha keygen --identity you@example.com")
    if len(keys) > 1:
        raise UsageError(
            "there are several keys: " + ", ".join(display(key.identity) for key in keys),
            hint="choose one with --identity; to set the default: batuta config set pacha.default_key IDENTITY",
        )
    return keys[0]
