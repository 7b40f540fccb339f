"""What a PATH on the command line means: a file, or an object of the store.

`blake3:<hex>` always means the store. Any other text is a path when a file of that name exists, as for every other
program; else it may be the name of an object, `NAME[:TAG]`.

`-` is handled by the caller. Importing this module is cheap.
"""

import contextlib
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass

from batuta_cli.errors import InvalidInputError, NotFoundError, UsageError
from batuta_cli.files import StrPath, display, errors_named
from batuta_cli.pacha.hashing import PREFIX, ContentAddress
from batuta_cli.paths import NoHomeError

INSIDE = "model.sig"
"""The name of a signature that lies inside the directory that it signs, as OpenSSF Model Signing tools write it."""


@dataclass(frozen=True)
class Located:
    """Where a model lies."""

    path: str
    """The file to read."""
    label: str
    """What the user called it, for messages."""
    name: str | None
    """The model's own file name; None for an object of the store without a recorded file name."""
    address: ContentAddress | None = None
    """The content address that an object of the store must have, in addition to what a signature says."""
    stored_signature: str | None = None

    @property
    def signature(self) -> str:
        """The path of its signature, existing or not."""
        if self.stored_signature is not None:
            return self.stored_signature
        from batuta_cli.pacha.signing import signature_path  # loads the cryptography, which hashing does without

        return signature_path(self.path)

    @property
    def inside(self) -> str:
        """The path of a directory's signature inside it. Raises `UsageError` for a file."""
        if self.stored_signature is not None or not os.path.isdir(self.path):
            raise UsageError(f"{display(self.label)}: is not a directory, so no signature fits inside it")
        return os.path.join(self.path, INSIDE)

    @property
    def signatures(self) -> tuple[str, ...]:
        """Where its signature is looked for, in this order."""
        if self.stored_signature is not None:
            return (self.stored_signature,)
        from batuta_cli.pacha.signing import oms_signature_path

        beside = (self.signature, oms_signature_path(self.path))
        return (*beside, os.path.join(self.path, INSIDE)) if os.path.isdir(self.path) else beside


def inside_model(files: Sequence[str], model: StrPath) -> list[str]:
    """Globs of the signature files that are inside the model, which they cannot be over themselves."""
    root = os.path.join(os.path.realpath(model), "")
    places = [os.path.realpath(file) for file in files if file != "-"]
    return [glob.escape(place.removeprefix(root)) for place in places if place.startswith(root)]


def locate(text: StrPath) -> Located:
    """Find the model that `text` means.

    Raises:
        NotFoundError: there is no such file, nor an object of that name or address.
        OperationError: a directory of its path cannot be searched.
        DamagedStateError: the object is missing or changed, or the names of the store are damaged.
        InvalidInputError: it begins like an address and is not a valid one.
    """
    text = os.fspath(text)
    if text.startswith(PREFIX) and _is_address(text):
        return _in_store(text)
    if os.path.lexists(text):
        return _file(text)
    if text.startswith(PREFIX):
        ContentAddress.parse(text)  # raises, and says what an address looks like
    from batuta_cli.pacha.store import Store, StoreName

    try:
        name = StoreName.parse(text)
    except InvalidInputError:
        return _file(text)
    with contextlib.suppress(NoHomeError):  # without a home there is no store
        if name in Store.default().names():
            return _in_store(text)
    if ":" in text:
        raise NotFoundError(
            f"{display(text)}: there is no such file, and nothing in the store has that name",
            hint="batuta pacha store list",
        )
    return _file(text)


def _file(text: str) -> Located:
    with errors_named(text):
        os.stat(text)
    return Located(text, text, os.path.basename(os.path.abspath(text)))


def _is_address(text: str) -> bool:
    try:
        ContentAddress.parse(text)
    except InvalidInputError:
        return False
    return True


def _in_store(text: str) -> Located:
    from batuta_cli.pacha.store import Store, StoreName, parse_reference

    reference = parse_reference(text)
    store = Store.default()
    address, path, entry = store.lookup(reference)
    name = entry.file if entry is not None else None
    if name is None and isinstance(reference, StoreName):
        name = reference.name.rpartition("/")[2]
    return Located(path, text, name, address, store.signature_path(address))
