"""What a cache says that it holds: models, their files, and the digest that each file must have."""

from dataclasses import dataclass
from enum import StrEnum


class FileStatus(StrEnum):
    """The result of checking one file of a cache."""

    INTACT = "intact"
    DAMAGED = "damaged"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    UNVERIFIABLE = "unverifiable"
    """The cache keeps no digest of the file, so nothing can be said of its content."""


@dataclass(frozen=True)
class ExpectedDigest:
    """The digest that a file must have; its `str` is `sha256:…`, `sha512:…` or `git-sha1:…`."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True)
class Repair:
    """How a file of a cache is fetched again."""

    fetch: tuple[str, ...] = ()
    """The command line of the cache's own tool; empty where the cache does not record the source."""
    remove_first: bool = False
    """The tool keeps an existing blob even when its content is wrong, so a damaged one has to be deleted first."""
    advice: str = ""
    """What to do in words, where `fetch` is empty or not enough."""


@dataclass(frozen=True)
class FileUse:
    """One name of a blob: the file of a model, and the revision of the model where the cache keeps several."""

    file: str
    revision: str | None = None


@dataclass(frozen=True)
class CachedFile:
    """A file of a model in a cache."""

    path: str
    uses: tuple[FileUse, ...]
    expected: ExpectedDigest | None
    repair: Repair
    size: int | None = None
    """In bytes, where the cache records it."""
    known: FileStatus | None = None
    """Set where the status is known without reading the file."""
    reason: str = ""
    """Why `known` is what it is."""


@dataclass(frozen=True)
class CachedModel:
    """A model of a cache, in the words of the cache's own tool: `OWNER/NAME`, `llama3.2:3b`."""

    name: str
    files: tuple[CachedFile, ...]


@dataclass(frozen=True)
class LeftOver:
    """A file of a cache that no model uses and whose content cannot be judged, such as a part of a download."""

    path: str
    size: int
    reason: str


@dataclass(frozen=True)
class CacheContents:
    """All that a cache says of itself."""

    models: tuple[CachedModel, ...]
    incomplete: tuple[LeftOver, ...] = ()
    """Downloads that have not finished."""
    unverifiable: tuple[LeftOver, ...] = ()
    """Files that no model uses and that no digest is known of."""
    absent: tuple[str, ...] = ()
    """What the cache mentions and need not hold, such as an image for another platform."""
