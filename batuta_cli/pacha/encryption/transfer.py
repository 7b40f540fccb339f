"""Encrypts and decrypts files and streams in constant memory.

An output file appears whole or not at all (`atomic_output`). Bytes written to a pipe, a device or stdout cannot be
withdrawn: version 1 writes nothing before its tag is checked, version 2 writes each chunk once it is authenticated.
When version 2 fails later, the bytes already written are an authentic prefix of the plaintext, and must be discarded.

`progress` is called with bytes of the input. When a run succeeds their sum is the size of the input, also when it was
read twice.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from batuta_cli.errors import ChangedWhileReadError
from batuta_cli.files import (
    Advance,
    AtomicOutput,
    StrPath,
    atomic_output,
    display,
    errors_named,
    open_stream,
    same_content_expected,
    write_all,
)
from batuta_cli.pacha.encryption import v1, v2
from batuta_cli.pacha.encryption.header import TAG_SIZE, Header, SingleMessageHeader, read_header
from batuta_cli.pacha.encryption.kdf import DEFAULT_MEMORY_LIMIT_KIB
from batuta_cli.pacha.encryption.passwords import Password, normalise
from batuta_cli.pacha.encryption.sink import FileSink, Sink, StreamSink
from batuta_cli.pacha.encryption.source import RangeSource, StreamSource, pread_into
from batuta_cli.pacha.encryption.unlock import DEFAULT_FORMAT, chunk_cipher, new_header, password_key

Output = int | AtomicOutput
"""A descriptor that is written directly, or a file that is named when it is complete."""


@dataclass(frozen=True, slots=True)
class EncryptedFile:
    """What was read or written: its format, and the sizes in bytes of the two sides."""

    version: int
    plaintext_size: int
    encrypted_size: int


@dataclass(frozen=True, slots=True)
class Job:
    """Input, output and the normalised password. The names are for messages."""

    source: int
    source_name: StrPath
    output: Output | Sink
    output_name: StrPath
    secret: bytes
    progress: Advance

    def sink(self, largest: int) -> AbstractContextManager[Sink]:
        """Where the result goes, in pieces of at most `largest` bytes."""
        if isinstance(self.output, int):
            return StreamSink(self.output, self.output_name)
        if not isinstance(self.output, AtomicOutput):
            return nullcontext(self.output)
        if self.output.through:
            return StreamSink(self.output.fd, self.output_name)
        return FileSink(self.output.fd, self.output_name, largest)

    def spool_directory(self) -> str:
        """The directory for ciphertext whose tag is not yet checked: that of the output when the output is a file."""
        if isinstance(self.output, AtomicOutput) and not self.output.through:
            return os.path.dirname(self.output.target)
        return os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  (unnamed there; /tmp is often memory)


def encrypt_path(
    source: StrPath,
    output: StrPath,
    password: Password,
    *,
    format: int = DEFAULT_FORMAT,
    force: bool = False,
    progress: Advance | None = None,
) -> EncryptedFile:
    """Encrypt the file, FIFO or device `source` into `output`.

    Args:
        format: 1, which the Rust crate reads, too; or 2, for pipes, random access and more than 256 GiB.
        force: replace an existing output.

    Raises:
        InvalidInputError: the password is unusable, or the source is a directory or too large for version 1.
        UsageError: unknown format, existing output, or output equal to input.
        ChangedWhileReadError: the source changed under the reader.
        OperationError: reading or writing failed. In all cases nothing is left behind.
    """
    secret, header = normalise(password), new_header(format)
    descriptor = open_stream(source)
    try:
        with atomic_output(output, force=force, inputs=[descriptor]) as target:
            return encrypt(Job(descriptor, source, target, output, secret, progress or _ignore), header)
    finally:
        os.close(descriptor)


def encrypt_stream(
    source: int,
    output: Output,
    password: Password,
    *,
    format: int = DEFAULT_FORMAT,
    progress: Advance | None = None,
    source_name: StrPath = "stdin",
    output_name: StrPath = "stdout",
) -> EncryptedFile:
    """Encrypt the rest of the descriptor `source` into `output`; as `encrypt_path`.

    On an error a descriptor as `output` has received a beginning, which will not decrypt.
    """
    job = Job(source, source_name, output, output_name, normalise(password), progress or _ignore)
    return encrypt(job, new_header(format))


def encrypt(job: Job, header: Header) -> EncryptedFile:
    """Do `job` under a new `header`. Reusing a header would expose both plaintexts."""
    before = os.fstat(job.source)
    regular = stat.S_ISREG(before.st_mode)
    stream = StreamSource(job.source, job.source_name, ahead=regular)
    if isinstance(header, SingleMessageHeader):
        if regular:
            v1.check_size(before.st_size, job.source_name)
        key = password_key(header, job.secret)
        with job.sink(v1.PIECE) as sink:
            size = v1.encrypt(stream, sink, header, key, job.source_name, job.progress)
        encrypted = v1.encrypted_size(size)
    else:
        cipher = chunk_cipher(header, None, job.secret, job.source_name)
        with job.sink(header.chunk_size + TAG_SIZE) as sink:
            size = v2.encrypt(stream, sink, header, cipher, job.progress)
        encrypted = v2.encrypted_size(size, header.chunk_size)
    if regular and not same_content_expected(before, os.fstat(job.source)):
        raise ChangedWhileReadError(f"{display(job.source_name)}: changed while it was being encrypted")
    return EncryptedFile(header.version, size, encrypted)


def decrypt_path(
    source: StrPath,
    output: StrPath,
    password: Password,
    *,
    force: bool = False,
    allow_kdf_memory_kib: int = DEFAULT_MEMORY_LIMIT_KIB,
    progress: Advance | None = None,
) -> EncryptedFile:
    """Decrypt the file, FIFO or device `source` into `output`.

    Args:
        force: replace an existing output.
        allow_kdf_memory_kib: the memory in KiB that the file may ask for to derive its key, up to 1 GiB.

    Raises:
        DecryptionError: wrong password, or the content is damaged or cut; the two cannot be told apart.
        InvalidInputError: not an encrypted file, a header that is cut or not allowed, or an unusable password.
        UsageError: existing output, or output equal to input.
        ChangedWhileReadError: the source changed between the two passes of version 1.
        OperationError: reading or writing failed. In all cases nothing is left behind.
    """
    secret = normalise(password)
    descriptor = open_stream(source)
    try:
        with atomic_output(output, force=force, inputs=[descriptor]) as target:
            job = Job(descriptor, source, target, output, secret, progress or _ignore)
            in_place = stat.S_ISREG(os.fstat(descriptor).st_mode) and not target.through
            return decrypt(job, allow_kdf_memory_kib, in_place=in_place)
    finally:
        os.close(descriptor)


def decrypt_stream(
    source: int,
    output: Output,
    password: Password,
    *,
    allow_kdf_memory_kib: int = DEFAULT_MEMORY_LIMIT_KIB,
    progress: Advance | None = None,
    source_name: StrPath = "stdin",
    output_name: StrPath = "stdout",
) -> EncryptedFile:
    """Decrypt the rest of the descriptor `source` into `output`; as `decrypt_path`.

    Version 1 is first copied, encrypted as it is, to an unnamed file: in the directory of the output when that is a
    file, else in `$TMPDIR`, else in `/var/tmp`.
    """
    job = Job(source, source_name, output, output_name, normalise(password), progress or _ignore)
    return decrypt(job, allow_kdf_memory_kib, in_place=False)


def decrypt_into(
    source: int,
    sink: Sink,
    password: Password,
    *,
    allow_kdf_memory_kib: int = DEFAULT_MEMORY_LIMIT_KIB,
    progress: Advance | None = None,
    source_name: StrPath,
) -> EncryptedFile:
    """Decrypt the regular file `source`, from its current position, into `sink`; as `decrypt_path`.

    On an error the caller must discard what `sink` received.
    """
    job = Job(source, source_name, sink, source_name, normalise(password), progress or _ignore)
    return decrypt(job, allow_kdf_memory_kib, in_place=True)


def decrypt(job: Job, memory_limit_kib: int, *, in_place: bool) -> EncryptedFile:
    """Do `job`. `in_place`: version 1 may read the source twice, because the output can still be withheld after."""
    status = os.fstat(job.source)
    stream = StreamSource(job.source, job.source_name, ahead=stat.S_ISREG(status.st_mode))
    header, commitment = read_header(stream.take, job.source_name, memory_limit_kib=memory_limit_kib)
    job.progress(header.SIZE)
    if not isinstance(header, SingleMessageHeader):
        cipher = chunk_cipher(header, commitment, job.secret, job.source_name)
        with job.sink(header.chunk_size) as sink:
            size = v2.decrypt(stream, sink, header, cipher, job.source_name, job.progress)
        return EncryptedFile(header.version, size, v2.encrypted_size(size, header.chunk_size))
    if in_place:
        size = _decrypt_v1(job, header, job.source, header.SIZE, status.st_size)
    else:
        with _spooled(stream, job.source_name, job.spool_directory()) as (spool, end):
            size = _decrypt_v1(job, header, spool, 0, end)
    return EncryptedFile(header.version, size, v1.encrypted_size(size))


def _decrypt_v1(job: Job, header: SingleMessageHeader, descriptor: int, start: int, end: int) -> int:
    """Decrypt the ciphertext and tag from `start` to `end` in `descriptor`, in two passes."""
    name, length = job.source_name, end - start - TAG_SIZE
    if length < 0:
        raise v1.wrong_or_damaged(name)
    v1.check_size(length, name)
    tag = bytearray(TAG_SIZE)
    pread_into(descriptor, memoryview(tag), start + length, name)
    body = RangeSource(descriptor, name, start, length)
    key = password_key(header, job.secret)
    v1.check(body, header, key, bytes(tag), name, _half(job.progress, 0))
    with job.sink(v1.PIECE) as sink:
        size = v1.decrypt(body, sink, header, key, bytes(tag), name, _half(job.progress, 1))
    job.progress(TAG_SIZE)
    return size


@contextmanager
def _spooled(source: StreamSource, name: StrPath, directory: str) -> Iterator[tuple[int, int]]:
    """The rest of `source` in an unnamed file that can be read again: its descriptor and its size."""
    with errors_named(directory):
        spool = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115  (closed below)
    with spool:
        size = 0
        for block, _ in source.blocks(v1.PIECE):
            size += len(block)
            v1.check_size(size - TAG_SIZE, name)
            with errors_named(directory):
                write_all(spool.fileno(), block)
        yield spool.fileno(), size


def _half(progress: Advance, index: int) -> Advance:
    """`progress` for pass `index` (0 or 1) of version 1: each pass counts half of every byte."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        before = (done + index) // 2
        done += count
        progress((done + index) // 2 - before)

    return advance


def _ignore(count: int) -> None:
    """Show no progress."""
