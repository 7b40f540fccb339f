"""Signing for OpenSSF Model Signing tools: bundles that the unmodified `model_signing verify key` accepts.

Whole files by SHA-256, in code-point order of their names (model-signing-spec); a single file is named `.`, which is
the only form that model_signing reads. What its verifier would refuse is refused here, in words.
"""

import hashlib
import json
from collections.abc import Sequence

from batuta_cli.errors import InvalidInputError, UsageError
from batuta_cli.files import Advance, StrPath, display
from batuta_cli.pacha.envelope import (
    SIGNATURE_FILE_LIMIT,
    Envelope,
    EnvelopeSignature,
    pre_authentication_encoding,
)
from batuta_cli.pacha.ignoring import expand_ignored, topmost
from batuta_cli.pacha.oms.digests import Part, digest_parts
from batuta_cli.pacha.oms.eckeys import EcSigningKey
from batuta_cli.pacha.scanning import FileEntry, check_unchanged, scan
from batuta_cli.pacha.statement import MAX_RESOURCES, PREDICATE_TYPE, STATEMENT_TYPE

GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")
"""What model_signing leaves out of every model unless it is told otherwise (`hashing.Config`)."""


def sign_for_oms(
    path: StrPath,
    key: EcSigningKey,
    name: str,
    *,
    ignore: Sequence[str] = (),
    ignore_paths: Sequence[str] = (),
    follow_symlinks: bool = False,
    progress: Advance | None = None,
) -> bytes:
    """The bundle for a file or directory of any size, in constant memory; `name` is the model's.

    `ignore`, `ignore_paths` and `follow_symlinks` are those of `signing.sign_path`.

    Raises:
        NotFoundError, OperationError, ChangedWhileReadError: the model cannot be read.
        InvalidInputError, UsageError: the model cannot be signed so that model_signing accepts it.
    """
    ignore_paths = topmost([*expand_ignored(path, ignore).paths, *ignore_paths])
    entries = scan(path, ignore=ignore_paths, follow_symlinks=follow_symlinks)
    _check_acceptable(path, name, entries, ignore_paths, follow_symlinks)
    digests = digest_parts([Part(entry, 0, entry.size) for entry in entries], "sha256", progress)
    check_unchanged(path, entries, ignore=ignore_paths, follow_symlinks=follow_symlinks)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(b"".join(digests)).hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": follow_symlinks,
                "ignore_paths": list(ignore_paths),
            },
            "resources": [
                {"name": entry.name, "algorithm": "sha256", "digest": digest.hex()}
                for entry, digest in zip(entries, digests, strict=True)
            ],
        },
    }
    payload = json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()
    value = key.sign(pre_authentication_encoding(payload))
    raw = Envelope(payload, (EnvelopeSignature("", value),), key.verifying_key.hint).to_json()
    if len(raw) > SIGNATURE_FILE_LIMIT:
        raise InvalidInputError(f"{display(name)}: the signature would be larger than {SIGNATURE_FILE_LIMIT:,} bytes")
    return raw


def _check_acceptable(
    path: StrPath, name: str, entries: Sequence[FileEntry], ignore_paths: Sequence[str], follow_symlinks: bool
) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{display(name)}: the name is not UTF-8, so it cannot be signed") from None
    if len(entries) > MAX_RESOURCES:
        raise InvalidInputError(f"{display(name)}: {len(entries):,} files, at most {MAX_RESOURCES:,} can be signed")
    git = sorted({top for entry in entries if (top := entry.name.partition("/")[0]) in GIT_PATHS})
    if git:
        raise UsageError(
            f"{display(path)}: has {', '.join(git)}, which model_signing leaves out when it verifies, so that a"
            " signature over it would fail there",
            hint="leave it out: " + " ".join(f"--ignore {top}" for top in git),
        )
    if not ignore_paths:
        return
    refused: list[str] = []
    scan(path, follow_symlinks=follow_symlinks, allow_empty=True, unusable=refused)
    if refused:
        raise UsageError(
            f"{display(path)}: {display(refused[0])} is a link or a special file, which model_signing refuses even"
            " where it is ignored",
            hint="move it out of the model",
        )
