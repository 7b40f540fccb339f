"""The table of cache layouts, and finding the cache that a word or a path means."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from batuta_cli.errors import InvalidInputError, NotFoundError
from batuta_cli.files import display, errors_named
from batuta_cli.pacha.caches import huggingface, localdir, oci, ollama
from batuta_cli.pacha.caches.contents import CacheContents


class LayoutModule(Protocol):
    """What the module of a layout has."""

    LAYOUT: str
    """The word for it on the command line and in JSON."""
    TITLE: str
    """What it is, in words."""

    def default_roots(self, environment: Mapping[str, str]) -> list[str]:
        """Where its tool keeps it, the first that exists counts; empty when there is no such place."""
        ...

    def root_at(self, path: str) -> str | None:
        """The directory to scan when `path` is of this layout, else None."""
        ...

    def scan(self, root: str, environment: Mapping[str, str]) -> CacheContents:
        """What it holds, without reading a blob. Raises `NotFoundError`, `OperationError`, `InvalidInputError`."""
        ...


LAYOUTS: tuple[LayoutModule, ...] = (huggingface, ollama, oci, localdir)
"""In the order in which a path is tried."""


@dataclass(frozen=True)
class CacheAt:
    """A cache: its layout and its directory."""

    layout: LayoutModule
    root: str

    def scan(self, environment: Mapping[str, str]) -> CacheContents:
        """See `LayoutModule.scan`."""
        return self.layout.scan(self.root, environment)


def default_caches(environment: Mapping[str, str]) -> list[CacheAt]:
    """The caches of the user that exist."""
    found = [_default(layout, environment) for layout in LAYOUTS]
    return [cache for cache in found if cache is not None]


def locate_cache(text: str, environment: Mapping[str, str]) -> CacheAt:
    """The cache that `text` means: `hf` or `ollama`, else a path.

    Raises:
        NotFoundError: there is no such directory.
        InvalidInputError: the directory is not of a known layout.
    """
    for layout in LAYOUTS:
        if text == layout.LAYOUT and (roots := layout.default_roots(environment)):
            cache = _default(layout, environment)
            if cache is None:
                tried = " or ".join(map(display, roots))
                raise NotFoundError(f"no {layout.TITLE} in {tried}", hint="name its directory: PATH")
            return cache
    with errors_named(text):
        os.stat(text)
    for layout in LAYOUTS:
        root = layout.root_at(text)
        if root is not None:
            return CacheAt(layout, root)
    raise InvalidInputError(
        f"{display(text)}: is not a cache of a known layout",
        hint="a Hugging Face hub directory or --local-dir, Ollama's models directory, or an OCI image layout",
    )


def _default(layout: LayoutModule, environment: Mapping[str, str]) -> CacheAt | None:
    root = next(filter(os.path.isdir, layout.default_roots(environment)), None)
    return None if root is None else CacheAt(layout, root)
