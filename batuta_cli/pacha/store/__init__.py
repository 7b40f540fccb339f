"""The content-addressed store: models kept once, read-only, under the address of their content.

    from batuta_cli.pacha.store import Store, StoreName, add

    added = add(Store.default(), "model.gguf", name=StoreName.parse("llama:8b"))
    added.object_path                # …/store/blake3/<2 hex>/<62 hex>

What it promises: an object appears whole or not at all, and its address is that of the bytes that were written, not of
the source at some other moment. A source that changes while it is read is an error. An addition never reports success
over a damaged object. `verify` moves a damaged object aside; it is never served again. `collect` deletes the objects
without a name, and never one that is being added. A lost or damaged `names.toml` is an error, not an empty store.

Where the file system can (btrfs, XFS, bcachefs), an object shares its blocks with the source (FICLONE) and costs
nothing; everywhere else it is a copy. It is a hard link only when asked for (`link=True`, `--link`), because then the
object *is* the user's file: that file turns read-only, and an edit in place damages the object.

A directory is a manifest of objects under its own address (docs/formats.md#content-address); `retrieve` copies it, or a
single file, out of the store.
"""

from batuta_cli.pacha.store.addition import Added, add, add_stored, add_stream
from batuta_cli.pacha.store.directories import add_directory, read_manifest
from batuta_cli.pacha.store.layout import Progress, Store, StoredObject
from batuta_cli.pacha.store.names import Reference, StoredName, StoreName, parse_reference
from batuta_cli.pacha.store.retrieval import Retrieved, retrieve
from batuta_cli.pacha.store.upkeep import Collected, Damaged, Report, collect, verify

__all__ = [
    "Added",
    "Collected",
    "Damaged",
    "Progress",
    "Reference",
    "Report",
    "Retrieved",
    "Store",
    "StoreName",
    "StoredName",
    "StoredObject",
    "add",
    "add_directory",
    "add_stored",
    "add_stream",
    "collect",
    "parse_reference",
    "read_manifest",
    "retrieve",
    "verify",
]
