"""Safe files: opens regular files only, and writes a file whole or not at all.

batuta writes files with `atomic_output`. It writes an unnamed file (`O_TMPFILE`), flushes it to the disk, and then
links it to its name, so that no error, full disk or kill -9 leaves a partial file. On a file system without unnamed
files, and to replace a file under `force`, it uses a hidden `.NAME.batuta-PID`, which it removes on errors and signals.
The next run removes the hidden file of a dead process.

All failures are `BatutaError`s that name the file. Names are escaped in messages.
"""

import contextlib
import errno
import fcntl
import os
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from batuta_cli.errors import (
    InvalidInputError,
    NotFoundError,
    OperationError,
    OutputExistsError,
    UsageError,
)
from batuta_cli.secrecy import NOT_SHOWN, is_key

StrPath = str | os.PathLike[str]

Advance = Callable[[int], None]
"""Called with the number of bytes just processed, for a progress bar. One with an attribute `file_done`, a function
without arguments, has it called for each complete file."""


def file_done(advance: Advance | None) -> None:
    """Tell a progress bar that counts files that one is complete."""
    if (count := getattr(advance, "file_done", None)) is not None:
        count()


_IS_UTF8 = sys.getfilesystemencoding() == "utf-8"

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""Flags of open(2) for what should be a regular file: a FIFO does not block, a terminal does not take control."""

_TEMPORARY = ".{name}.batuta-{pid}"

# Unicode's bidirectional controls: a terminal shows a name with them like another name.
# https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_control(character: str) -> bool:
    """Whether a character could change what a terminal shows: C0, DEL, C1, line separators, bidirectional controls."""
    code = ord(character)
    return code < 0x20 or 0x7F <= code <= 0x9F or character in _BIDIRECTIONAL or code in (0x2028, 0x2029)


# Invisible characters that are not controls: Default_Ignorable_Code_Point outside category Cf.
# https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt
_IGNORABLE = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF)),
)


def is_invisible(character: str) -> bool:
    """Whether a character is invisible, so that two names with and without it look alike.

    True for Unicode's category Cf (zero-width spaces and joiners, the soft hyphen, tags) and for other characters that
    are ignored by default (variation selectors, Hangul fillers).
    """
    if character.isascii():
        return False
    code = ord(character)
    return unicodedata.category(character) == "Cf" or any(first <= code <= last for first, last in _IGNORABLE)


def display(name: object) -> str:
    """`name` for a message: escaped by `escaped`; a private key is replaced (see `secrecy`)."""
    text = name if isinstance(name, str) else os.fsdecode(name) if isinstance(name, bytes) else str(name)
    return NOT_SHOWN if is_key(text) else escaped(text)


def escaped(text: str) -> str:
    """`text` with control and invisible characters and undecodable bytes as backslash escapes."""
    return "".join(_escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if is_control(character) or 0xD800 <= code <= 0xDFFF:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(
            character, f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
        )
    if is_invisible(character):
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return character


def utf8_name(name: str) -> str:
    """A file name as Python decoded it from the locale's encoding, decoded from UTF-8 instead.

    A byte that is not UTF-8 becomes a surrogate escape (PEP 383), as in a UTF-8 locale.
    """
    if name.isascii() or _IS_UTF8:
        return name
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def is_dangling(path: StrPath) -> bool:
    """Whether `path` is a symbolic link whose target does not exist."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return os.path.islink(path)
    except (OSError, ValueError):
        return False
    return False


def dangling(path: StrPath) -> str:
    """What is wrong with a symbolic link whose target does not exist."""
    return f"is a link to {display(os.readlink(path))}, which does not exist"


def os_error(error: OSError, path: StrPath) -> OperationError:
    """The `BatutaError` for `error` on `path`."""
    reason = (error.strerror or str(error)).lower()
    if error.errno == errno.ENOENT and is_dangling(path):
        return NotFoundError(f"{display(path)}: {dangling(path)}")
    if error.errno == errno.ENOENT:
        return NotFoundError(f"{display(path)}: no such file or directory")
    if error.errno == errno.EACCES:
        return OperationError(f"{display(path)}: permission denied")
    return OperationError(f"{display(path)}: {reason}")


class ErrorsNamed:
    """See `errors_named`. A class, because a generator takes five times as long, and every small file needs one."""

    __slots__ = ("_path",)

    def __init__(self, path: StrPath) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise os_error(error, self._path) from error
        if isinstance(error, ValueError):  # a NUL in a path
            raise InvalidInputError(f"{display(self._path)}: not a usable file name") from error


def errors_named(path: StrPath) -> ErrorsNamed:
    """Turn an `OSError` inside the block into a `BatutaError` that names `path`."""
    return ErrorsNamed(path)


def open_regular(path: StrPath, *, follow_symlinks: bool = True) -> int:
    """Open a regular file for reading and return its descriptor.

    Checks the open descriptor, so that the file cannot be replaced between check and use. A FIFO is refused without
    blocking.

    Raises `NotFoundError`, `OperationError`, or `InvalidInputError` when it is not a regular file.
    """
    with errors_named(path):
        descriptor = os.open(path, OPEN_FLAGS if follow_symlinks else OPEN_FLAGS | os.O_NOFOLLOW)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise InvalidInputError(f"{display(path)}: is {kind_of(mode)}, not a file")
    return descriptor


def open_stream(path: StrPath) -> int:
    """Open a file, a FIFO or a device for reading and return its descriptor.

    Raises the errors of `open_regular`; `InvalidInputError` for a directory only.
    """
    with errors_named(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        os.close(descriptor)
        raise InvalidInputError(f"{display(path)}: is a directory, not a file")
    return descriptor


def kind_of(mode: int) -> str:
    """A file's type in words, from its `st_mode`."""
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    )
    return next((words for test, words in kinds if test(mode)), "a regular file")


def open_regular_or_pipe(path: StrPath) -> int:
    """As `open_regular`, and accepts the pipe of a shell's process substitution, `<(command)`.

    A named FIFO is refused, because opening one without a writer would block.
    """
    with errors_named(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if _is_anonymous_pipe(descriptor):
        os.set_blocking(descriptor, True)
        return descriptor
    os.close(descriptor)
    return open_regular(path)


def _is_anonymous_pipe(descriptor: int) -> bool:
    with contextlib.suppress(OSError):  # without /proc there is no such path either
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:")
    return False


def read_limited(path: StrPath, limit: int) -> bytes:
    """The whole of a small regular file, or of the pipe of a process substitution.

    Raises `InvalidInputError` when it is larger than `limit` bytes, and the errors of `open_regular`.
    """
    with os.fdopen(open_regular_or_pipe(path), "rb", buffering=0) as file, errors_named(path):
        data = read_beyond(file, limit)
    if len(data) > limit:
        raise InvalidInputError(f"{display(path)}: larger than {limit:,} bytes, the limit of such a file")
    return data


def read_beyond(file: FileIO, limit: int) -> bytes:
    """The rest of a file, or `limit` + 1 bytes of it when it is larger than `limit` bytes."""
    data = b""
    while len(data) <= limit and (piece := file.read(limit + 1 - len(data))):
        data += piece
    return data


def same_content_expected(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether two `fstat` results of one file show no change of its content in between."""
    # Not the change time: a new hard link to the file changes it.
    return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`, in as many writes as the system needs."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class AtomicOutput:
    """A file that is being written and has no name yet; see `atomic_output`."""

    def __init__(self, path: StrPath, *, force: bool, mode: int, inputs: Sequence[int]) -> None:
        self.path = os.fspath(path)
        with errors_named(path):
            self.target = os.path.realpath(path)
        self._directory, self._name = os.path.split(self.target)
        self._force = force
        self._mode = mode
        self._temporary: str | None = None
        self.through = False
        """The target is a device or a pipe, which is written directly."""
        self.fd = -1
        """The descriptor to write to."""
        self._check_target(inputs)

    def _check_target(self, inputs: Sequence[int]) -> None:
        try:
            found = os.stat(self.target)
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            with errors_named(self.path):
                raise
        for descriptor in inputs:
            if os.path.samestat(os.fstat(descriptor), found) and stat.S_ISREG(found.st_mode):
                raise UsageError(f"{display(self.path)}: the output is the input", hint="choose another --output")
        if stat.S_ISDIR(found.st_mode):
            raise UsageError(f"{display(self.path)}: the output is a directory", hint="name a file inside it")
        if not stat.S_ISREG(found.st_mode):
            self.through = True
        elif not self._force:
            raise OutputExistsError(
                f"{display(self.path)}: already exists",
                hint="pass --force to replace it, or choose another --output",
            )

    def __enter__(self) -> Self:
        with errors_named(self.path):
            self._open()
        return self

    def _open(self) -> None:
        if self.through:
            self.fd = os.open(self.target, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
            return
        _clear_abandoned(self._directory, self._name)
        if not self._open_unnamed():
            self._open_hidden()
        with contextlib.suppress(OSError):  # shows a run in another PID namespace that this process is alive
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _open_unnamed(self) -> bool:
        if not os.path.isdir("/proc/self/fd"):  # needed to link the file later, see open(2)
            return False
        try:
            self.fd = os.open(self._directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, self._mode)
        except OSError as error:
            # EISDIR: a kernel without O_TMPFILE; EOPNOTSUPP, EINVAL: a file system without it (NFS, FUSE, FAT).
            if error.errno not in (errno.EISDIR, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            return False
        return True

    def _open_hidden(self) -> None:
        name = self._hidden_name()
        self.fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._temporary = name

    def _hidden_name(self) -> str:
        return os.path.join(self._directory, _hidden(self._name, str(os.getpid())))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`. Raises `OperationError` that names the output (a full disk, a limit)."""
        with errors_named(self.path):
            write_all(self.fd, data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.through:
                with errors_named(self.path):
                    self._commit()
        finally:
            if self._temporary is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._temporary)
            os.close(self.fd)

    def _commit(self) -> None:
        if self._temporary is not None:
            os.fchmod(self.fd, self._mode & ~_umask())
        os.fsync(self.fd)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._force and os.path.lexists(self.target):
                self._exchange()
            else:
                self._link(self.target)
            os.fsync(directory)
        finally:
            os.close(directory)

    def _exchange(self) -> None:
        if self._temporary is None:
            self._link(self._hidden_name())
            self._temporary = self._hidden_name()
        os.rename(self._temporary, self.target)
        self._temporary = None

    def _link(self, name: str) -> None:
        """Link the finished file to `name`, which must not exist."""
        try:
            if self._temporary is None:
                # Python calls linkat(2), which follows the link in /proc, only with a directory descriptor. The
                # absolute path ignores that descriptor.
                os.link(f"/proc/self/fd/{self.fd}", name, src_dir_fd=self.fd, follow_symlinks=True)
            else:
                os.link(self._temporary, name)
        except FileExistsError:
            raise OutputExistsError(f"{display(self.path)}: was created by another program in the meantime") from None
        except OSError as error:
            # A file system without hard links: here the last check and the rename are two steps.
            if self._temporary is None or error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            if os.path.lexists(name):
                raise OutputExistsError(
                    f"{display(self.path)}: was created by another program in the meantime"
                ) from None
            os.rename(self._temporary, name)
            self._temporary = None


def atomic_output(path: StrPath, *, force: bool = False, mode: int = 0o666, inputs: Sequence[int] = ()) -> AtomicOutput:
    """A context manager for a file that appears whole when the block succeeds, and not at all otherwise.

    Args:
        path: the file to create; links are followed. A device or a pipe is written directly.
        force: replace an existing file.
        mode: permission bits before the umask is applied; 0o600 for keys.
        inputs: descriptors of the input files; an output that is one of them is refused, even with `force`.

    Raises:
        OutputExistsError: it exists and `force` is false.
        UsageError: it is a directory, or one of `inputs`.
        OperationError: it could not be written; no file is left.
    """
    return AtomicOutput(path, force=force, mode=mode, inputs=inputs)


def write_file(path: StrPath, data: bytes, *, force: bool = False, mode: int = 0o666) -> None:
    """Write a small file whole or not at all; see `atomic_output`."""
    with atomic_output(path, force=force, mode=mode) as output:
        output.write(data)


def check_writable(directory: Path) -> None:
    """Raise `OperationError` unless a file can be written in `directory` now; leaves no file.

    It writes 4 KiB, so that a full disk, a quota and a limit of file size are found, not only permissions.
    """
    with errors_named(directory):
        try:
            descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            path = directory / _hidden("check", str(os.getpid()))  # the file system has no unnamed files
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.unlink(path)
        try:
            write_all(descriptor, bytes(4096))
        finally:
            os.close(descriptor)


def _umask() -> int:
    # os.umask sets the mask to read it, and other threads would see that.
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    current = os.umask(0o077)
    os.umask(current)
    return current


def _hidden(name: str, pid: str) -> str:
    # A file name has at most 255 bytes; prefix, suffix and process number take up to 20 of them.
    return _TEMPORARY.format(name=os.fsdecode(os.fsencode(name)[:230]), pid=pid)


def _clear_abandoned(directory: str, name: str) -> None:
    """Remove hidden files for `name` whose process is dead."""
    prefix = _hidden(name, "")
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            owner = entry.name.removeprefix(prefix)
            if owner != entry.name and owner.isascii() and owner.isdigit() and not _alive(int(owner), entry.path):
                os.unlink(entry.path)


def _alive(pid: int, path: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        pass
    except (OverflowError, PermissionError):
        return True
    else:
        if pid != os.getpid():  # a process of an earlier run of this container may have had our number
            return True
    return is_locked(path)  # it may be alive in another container that shares this directory


def is_locked(path: StrPath) -> bool:
    """Whether another open descriptor of a file holds a lock (flock(2)). Raises `OSError` when it cannot be opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` during the block; created with mode 0600 when it does not exist."""
    with errors_named(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        os.close(descriptor)
