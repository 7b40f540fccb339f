"""`batuta pacha inspect`: what a signature or an encrypted file says about itself."""

import os
from typing import Annotated, Any, BinaryIO

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.models import shell_path
from batuta_cli.errors import InvalidInputError
from batuta_cli.files import display

commands = typer.Typer()

_SHOWN = 20  # resources in the text; --json has all
_HEADER_LIMIT = 4096  # bytes; the header of an encrypted file has 99, and a pipe holds as many as this


@commands.command(
    cls=Command, epilog=examples("batuta pacha inspect model.gguf.sig", "batuta pacha inspect model.gguf.enc --json")
)
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A .sig or .enc file; - is stdin.")],
) -> console.CommandResult:
    """Show what a .sig or .enc file, or another tool's OpenSSF bundle, says about itself.

    Nothing is verified, no secret is needed.
    """
    import sys

    from batuta_cli.files import errors_named, open_regular_or_pipe

    if file == "-":
        with errors_named("stdin"):
            return _inspect(sys.stdin.buffer, "stdin")
    with os.fdopen(open_regular_or_pipe(file), "rb") as opened:
        return _inspect(opened, file)


def _inspect(opened: BinaryIO, name: str) -> console.CommandResult:
    from batuta_cli.pacha.envelope import SIGNATURE_FILE_LIMIT

    start = opened.read(_HEADER_LIMIT)
    if start.startswith(b"PACHAENC"):
        return _encrypted(opened, start, name)
    if start.lstrip()[:1] == b"{":
        return _signature(start + opened.read(SIGNATURE_FILE_LIMIT + 1 - len(start)), name)
    beside = [name + ending for ending in (".sig", ".enc") if os.path.isfile(name + ending)]
    raise InvalidInputError(
        f"{display(name)}: neither a signature nor an encrypted file",
        hint=f"batuta pacha inspect {shell_path(beside[0])}" if beside else None,
    )


def _encrypted(opened: BinaryIO, start: bytes, name: str) -> console.CommandResult:
    import dataclasses

    from batuta_cli.pacha.encryption import describe_stream

    if opened.seekable():
        os.lseek(opened.fileno(), 0, os.SEEK_SET)
        return _fields({"kind": "encrypted"} | dataclasses.asdict(describe_stream(opened.fileno(), name)))
    read, write = os.pipe()  # the bytes already read from a pipe, in another pipe
    os.write(write, start)
    os.close(write)
    with os.fdopen(read, "rb") as header:
        return _fields({"kind": "encrypted"} | dataclasses.asdict(describe_stream(header.fileno(), name)))


def _signature(raw: bytes, name: str) -> console.CommandResult:
    from batuta_cli.pacha.oms.signature import OmsSignature
    from batuta_cli.pacha.pacha1 import Pacha1Signature
    from batuta_cli.pacha.signing import ModelSignature
    from batuta_cli.pacha.statement import format_time

    try:
        body = ModelSignature.parse(raw).body
    except InvalidInputError as error:
        raise InvalidInputError(f"{display(name)}: {error.message}", hint=error.hint) from None
    if isinstance(body, Pacha1Signature):
        return _fields(
            {
                "kind": "signature",
                "format": "pacha1",
                "binds": ["content"],
                "address": str(body.content),
                "claimed_key_id": body.signer_key.key_id,
                "claimed_identity": body.signer_id,
                "claimed_time": body.timestamp,
            }
        )
    if isinstance(body, OmsSignature):
        from batuta_cli.pacha.oms.description import describe

        return _fields({"kind": "signature", "format": "oms"} | describe(body))
    stated = body.statement
    return _fields(
        {
            "kind": "signature",
            "format": "bundle",
            "binds": ["content", "name", "identity", "time"],
            "name": stated.name,
            "address": str(stated.address),
            "claimed_key_id": stated.public_key.key_id if stated.public_key else None,
            "claimed_identity": stated.identity,
            "created": format_time(stated.created),
            "expires": format_time(stated.expires),
            "tool": stated.tool,
            "ignored": list(stated.ignore_paths),
            "follows_symlinks": stated.allow_symlinks,
            "signatures": [{"keyid": s.keyid} for s in body.envelope.signatures],
            "files": [{"name": r.name, "size": r.size, "digest": f"blake3:{r.digest.hex()}"} for r in stated.resources],
        }
    )


def _fields(result: dict[str, Any]) -> console.CommandResult:
    lines = []
    for name, value in result.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            lines += [f"{name:17} {display(', '.join(value))}"] if value else []
        elif isinstance(value, list):
            rows = [" ".join(str(part) for part in row.values() if part is not None) for row in value]
            rows = [row for row in rows if row]
            lines += [f"{name:17} {display(row)}" for row in rows[:_SHOWN]]
            if len(rows) > _SHOWN:
                lines.append(f"{name:17} and {len(rows) - _SHOWN:,} more")
        elif value is not None:
            lines.append(f"{name:17} {display(value)}")
    console.note("nothing was verified; these are the file's own claims")
    return console.CommandResult(result, "\n".join(lines))
