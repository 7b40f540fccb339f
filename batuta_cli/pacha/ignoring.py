"""Which files of a model directory are left out: globs when it is signed, relative paths in the signature.

`expand_ignored` turns globs into the paths that they name at that moment. Only those paths are signed. Each means
itself and everything beneath it. A file that appears later elsewhere is never left out, also under the same base name.

Rules of a glob, which is always relative to the model's root:
- `*`, `?` and `[…]` match within one part of a path, never across `/`. A leading dot needs no special care.
- `**` as a whole part matches any number of directories: `**/*.log` names every log file, at the root too.
- `logs` names the file or directory `logs` at the root alone; `./logs` and `logs/` mean the same.
- Upper and lower case differ, and so do different Unicode spellings of one letter.
- A glob without `*`, `?` or `[` is recorded even when nothing has that name yet.
"""

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from batuta_cli.errors import BatutaError, InvalidInputError
from batuta_cli.files import StrPath, display, errors_named, utf8_name

_WILDCARDS = frozenset("*?[")
_GLOB_LIMIT = 4096  # bytes of a path, PATH_MAX in linux/limits.h; a longer glob names nothing


@dataclass(frozen=True)
class IgnoredPaths:
    """What globs name in a model: relative paths in order, none beneath another; and the globs that name nothing."""

    paths: tuple[str, ...]
    unmatched: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Glob:
    """One glob. A state is the index of the part that the next component of a path must match."""

    text: str
    parts: tuple[Callable[[str], object] | None, ...]
    """How to match each part; None for `**`."""
    literal: str | None
    """The path that a glob without wildcards names."""

    @property
    def start(self) -> frozenset[int]:
        """The states before the first component."""
        return self._skipping([0])

    def after(self, states: Iterable[int], component: str) -> frozenset[int]:
        """The states after one more component of a path."""
        following = []
        for state in states:
            matches = self.parts[state]
            if matches is None:
                following.append(state)
            elif matches(component):
                following.append(state + 1)
        return self._skipping(following)

    def is_complete(self, states: Iterable[int]) -> bool:
        """Whether the components so far are a path that the glob names."""
        return len(self.parts) in states

    def _skipping(self, states: Iterable[int]) -> frozenset[int]:
        found: set[int] = set()
        for state in states:
            last = state
            while last < len(self.parts) and self.parts[last] is None:  # `**` matches no directory as well
                last += 1
            found.update(range(state, last + 1))
        return frozenset(found)


def _parse(text: str) -> _Glob:
    if len(text) > _GLOB_LIMIT:
        raise InvalidInputError(f"--ignore: a glob of {len(text):,} characters, at most {_GLOB_LIMIT:,} are read")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts or not parts or "\0" in text:
        raise InvalidInputError(
            f"--ignore {display(text) or repr(text)}: does not name a path inside the model",
            hint="name it from the model's root: --ignore logs, --ignore '*.log', --ignore '**/*.log'",
        )
    if parts[-1] == "**":
        parts[-1] = "*"  # `logs/**`: naming the direct entries of a directory names everything beneath it
    matchers = tuple(None if part == "**" else re.compile(fnmatch.translate(part)).match for part in parts)
    return _Glob(text, matchers, None if _WILDCARDS & set(text) else "/".join(parts))


def is_glob(text: str) -> bool:
    """Whether a text has a wildcard in it."""
    return bool(_WILDCARDS & set(text))


def check_globs(globs: Sequence[str]) -> None:
    """Raise `InvalidInputError` for a glob that names no path inside a model: empty, `.`, absolute, or with `..`."""
    for text in globs:
        _parse(text)


def expand_ignored(root: StrPath, globs: Sequence[str]) -> IgnoredPaths:
    """The paths inside the model `root` that globs name now. In a model that is a single file they name nothing.

    Raises:
        InvalidInputError: a glob is empty, `.`, absolute, or has `..` in it.
        NotFoundError, OperationError: the model cannot be read.
    """
    parsed = [_parse(text) for text in globs]
    if not parsed:
        return IgnoredPaths(())
    with errors_named(root):
        if not stat.S_ISDIR(os.stat(root).st_mode):
            return IgnoredPaths((), tuple(globs))
    found: set[str] = set()
    matched: set[_Glob] = set()
    for name, glob in _walk(os.fspath(root), parsed):
        found.add(name)
        matched.add(glob)
    found.update(glob.literal for glob in parsed if glob.literal is not None)
    unmatched = tuple(glob.text for glob in parsed if glob not in matched)
    return IgnoredPaths(topmost(found), unmatched)


def _walk(root: str, globs: Sequence[_Glob]) -> Iterator[tuple[str, _Glob]]:
    """Every path that a glob names, without those beneath it; only directories that could hold one are read."""
    waiting = [(root, "", [(glob, glob.start) for glob in globs], False)]
    while waiting:
        directory, prefix, states, left_out = waiting.pop()
        try:
            with errors_named(directory):
                items = list(os.scandir(directory))
        except BatutaError:
            if not left_out:
                raise
            continue  # all of it is left out, so it need not be readable
        for item in items:
            after = [(glob, glob.after(before, utf8_name(item.name))) for glob, before in states]
            complete = [glob for glob, reached in after if glob.is_complete(reached)]
            for glob in complete:
                yield prefix + utf8_name(item.name), glob
            further = [(glob, reached) for glob, reached in after if reached and glob not in complete]
            if further and item.is_dir(follow_symlinks=False):
                waiting.append((item.path, f"{prefix}{utf8_name(item.name)}/", further, left_out or bool(complete)))


def matching_part(globs: Sequence[str], name: str) -> str | None:
    """The shortest path among `name` and its parents that a glob names, whether it exists or not; None without one.

    Raises `InvalidInputError` as `expand_ignored`.
    """
    shortest: str | None = None
    for glob in map(_parse, globs):
        states, parts = glob.start, name.split("/")
        for end, part in enumerate(parts, start=1):
            states = glob.after(states, part)
            if glob.is_complete(states):
                path = "/".join(parts[:end])
                shortest = path if shortest is None or len(path) < len(shortest) else shortest
                break
    return shortest


def topmost(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths in order, without those beneath another."""
    every = set(paths)
    return tuple(sorted(path for path in every if not is_beneath(path, every)))


def is_beneath(path: str, others: frozenset[str] | set[str]) -> bool:
    """Whether a parent directory of a relative path is among `others`."""
    end = path.find("/")
    while end != -1:
        if path[:end] in others:
            return True
        end = path.find("/", end + 1)
    return False


def files_left_out(root: StrPath, paths: Iterable[str]) -> tuple[str, ...]:
    """The files, links and special files at or beneath relative paths, by name.

    A directory that cannot be read is listed itself, with a `/` at its end.
    """
    found: list[str] = []
    waiting = list(topmost(paths))
    while waiting:
        name = waiting.pop()
        full = os.path.join(os.fsencode(root), name.encode("utf-8", "surrogateescape"))
        try:
            if not stat.S_ISDIR(os.lstat(full).st_mode):
                found.append(name)
                continue
        except (OSError, ValueError):  # nothing of that name is there
            continue
        try:
            waiting += [f"{name}/{inner.decode('utf-8', 'surrogateescape')}" for inner in os.listdir(full)]
        except OSError:
            found.append(name + "/")
    return tuple(sorted(found))


def check_ignored_path(path: str) -> None:
    """Raise `InvalidInputError` unless `path` is what a signature may record: a plain relative path in UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"{display(path[:200])} is not UTF-8", hint="rename it, or ignore its directory"
        ) from None
    parts = path.split("/")
    if "" in parts or "." in parts or ".." in parts or "\0" in path:
        raise InvalidInputError(f"{display(path[:200])!r} is not a relative path inside the model")
