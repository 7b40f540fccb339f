"""Encrypt and decrypt what is in memory. For files and streams of any size see `transfer`."""

from batuta_cli.pacha.encryption import v1, v2
from batuta_cli.pacha.encryption.header import TAG_SIZE, SingleMessageHeader, read_header
from batuta_cli.pacha.encryption.kdf import DEFAULT_MEMORY_LIMIT_KIB
from batuta_cli.pacha.encryption.passwords import Password, normalise
from batuta_cli.pacha.encryption.sink import MemorySink
from batuta_cli.pacha.encryption.source import MemorySource
from batuta_cli.pacha.encryption.unlock import DEFAULT_FORMAT, chunk_cipher, new_header, password_key

_NAME = "the data"


def encrypt_model(data: bytes, password: Password, *, format: int = DEFAULT_FORMAT) -> bytes:
    """`data` as an encrypted file of version `format`, 1 or 2.

    Raises `InvalidInputError` for an unusable password, `UsageError` for an unknown format.

    >>> decrypt_model(encrypt_model(b"weights", "correct horse"), "correct horse")
    b'weights'
    """
    secret, header, source = normalise(password), new_header(format), MemorySource(memoryview(data))
    if isinstance(header, SingleMessageHeader):
        v1.check_size(len(data), _NAME)
        sink = MemorySink(v1.encrypted_size(len(data)))
        v1.encrypt(source, sink, header, password_key(header, secret), _NAME, _ignore)
    else:
        sink = MemorySink(v2.encrypted_size(len(data), header.chunk_size))
        v2.encrypt(source, sink, header, chunk_cipher(header, None, secret, _NAME), _ignore)
    return sink.content()


def decrypt_model(data: bytes, password: Password, *, allow_kdf_memory_kib: int = DEFAULT_MEMORY_LIMIT_KIB) -> bytes:
    """The plaintext of an encrypted file of either version.

    Args:
        allow_kdf_memory_kib: the memory in KiB that the data may ask for to derive the key, up to 1 GiB.

    Raises:
        DecryptionError: wrong password, or damaged or cut data; the two cannot be told apart.
        InvalidInputError: not an encrypted file, a header that is cut or not allowed, or an unusable password.
    """
    secret, rest = normalise(password), memoryview(data)

    def take(count: int) -> bytes:
        nonlocal rest
        taken, rest = bytes(rest[:count]), rest[count:]
        return taken

    header, commitment = read_header(take, _NAME, memory_limit_kib=allow_kdf_memory_kib)
    sink = MemorySink(len(rest))
    if isinstance(header, SingleMessageHeader):
        if len(rest) < TAG_SIZE:
            raise v1.wrong_or_damaged(_NAME)
        body, tag = MemorySource(rest[:-TAG_SIZE]), bytes(rest[-TAG_SIZE:])
        key = password_key(header, secret)
        v1.check(body, header, key, tag, _NAME, _ignore)
        v1.decrypt(body, sink, header, key, tag, _NAME, _ignore)
    else:
        cipher = chunk_cipher(header, commitment, secret, _NAME)
        v2.decrypt(MemorySource(rest), sink, header, cipher, _NAME, _ignore)
    return sink.content()


def _ignore(count: int) -> None:
    """Show no progress."""
