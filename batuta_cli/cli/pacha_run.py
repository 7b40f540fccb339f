"""`batuta pacha run`: starts a program on the verified bytes of a model, which are in sealed memory."""

import os
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli import verify_options as options
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.many import naming
from batuta_cli.cli.models import total_size, warn_of_pointers
from batuta_cli.cli.pacha_encrypt import MODEL_KEY, PasswordEnv, PasswordFile, read_password
from batuta_cli.cli.verify_options import Checks, existing_signature, load_all, verified_text
from batuta_cli.errors import BatutaError, UsageError, VerificationError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.pacha.sealed.content import SealingOptions
    from batuta_cli.pacha.sealed.verified import SealedModel
    from batuta_cli.pacha.signing import ModelSignature

commands = typer.Typer()

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SHARD = re.compile(r".+-\d{5}-of-(\d{5})\.gguf")


class _ProgramCommand(Command):
    """A command whose arguments after `--` are a program and its arguments."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        wants_help = {"--help", "-h"} & set(args)
        if args and "--" not in args and not wants_help and not ctx.resilient_parsing:
            ctx.fail("the program to start must follow --")
        return super().parse_args(ctx, args)


@commands.command(
    cls=_ProgramCommand,
    epilog=examples(
        "batuta pacha run model.gguf -- llama-server --model {}",
        "batuta pacha run model/ --identity alice@example.com -- vllm serve {}",
        "MODEL_KEY=… batuta pacha run model.gguf.enc --key alice.pub -- llama-server --model {}",
        "batuta pacha run shards/ -- llama-server --model {}/model-00001-of-00003.gguf",
    ),
)
def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, encrypted or not; a store name or address.")],
    program: Annotated[
        list[str],
        typer.Argument(
            metavar="-- PROGRAM...", help="The program and its arguments; {} stands for the path of the model."
        ),
    ],
    signature: options.Signatures = None,
    key: options.Keys = None,
    identity: options.Identities = None,
    digest: options.Digest = None,
    name: options.SignedName = None,
    require: options.Require = None,
    trust_file: options.TrustFile = None,
    ca: options.Authorities = None,
    trusted_root: options.TrustedRoot = None,
    issuer: options.Issuer = None,
    at: options.At = None,
    allow_unsigned: options.AllowUnsigned = None,
    allow_pacha1: options.AllowPacha1 = False,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    allow_kdf_memory: Annotated[
        int,
        typer.Option(metavar="MIB", min=1, max=1024, help="Largest memory that a file may request to derive its key."),
    ] = 256,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Largest memory for the model, such as 8G. By default what is available here, at most what the"
            " control group has left.",
        ),
    ] = None,
    allow_swap: Annotated[
        bool,
        typer.Option("--allow-swap", help="Start also when the memory cannot be locked and the machine has swap."),
    ] = False,
) -> console.ProgramStatus:
    """Verify a model in sealed memory, and start a program that reads it there.

    The program reads the bytes that were verified, also when the file changes meanwhile. An encrypted model is
    decrypted in memory only; its signature is the one of the plaintext. The exit status is the program's.
    """
    from batuta_cli.pacha.run import find_program, keep_signals_from_threads, run_program
    from batuta_cli.pacha.sealed.content import SealingOptions
    from batuta_cli.pacha.sealed.memfd import check_supported

    found = find_program(program)
    check_supported()
    limit = None if max_memory is None else _size(max_memory)
    if model == "-":
        raise UsageError("stdin belongs to the program, so the model cannot be read from it", hint="name a file")
    checks = Checks.of(
        [],
        signature=signature,
        key=key,
        identity=identity,
        digest=digest,
        name=name,
        require=require,
        trust_file=trust_file,
        ca=ca,
        trusted_root=trusted_root,
        issuer=issuer,
        at=at,
        allow_unsigned=allow_unsigned,
        allow_pacha1=allow_pacha1,
    )

    def password() -> bytes:
        return read_password(model, password_file, password_env, confirm=False)

    sealing = SealingOptions(limit, allow_swap, password, allow_kdf_memory * 1024)
    keep_signals_from_threads()
    try:
        sealed = _sealed(model, checks, sealing)
    except BatutaError as error:
        if isinstance(error, VerificationError):
            warn_of_pointers(model, model, follow_symlinks=True)
        raise naming(model, error) from None
    if "." in sealed.files:
        _warn_of_single_shard(model, sealed.name)
    passwords = {MODEL_KEY, password_env}
    environment = {name: value for name, value in os.environ.items() if name not in passwords}
    return console.ProgramStatus(run_program(found, sealed.name, sealed.files, environment))


def _size(text: str) -> int:
    """The bytes that a size such as `8G` or `512MiB` means; the units are powers of 1024."""
    parsed = re.fullmatch(r"(\d{1,15})([KMGT]?)(?:i?B)?", text, re.IGNORECASE | re.ASCII)
    if parsed is None:
        raise UsageError(f"--max-memory: not a size: {display(text)}", hint="8G, 512M, or a number of bytes")
    return int(parsed[1]) * _UNITS[parsed[2].upper()]


def _sealed(path: str, checks: Checks, sealing: "SealingOptions") -> "SealedModel":
    """The model, verified in sealed memory. Says who signed it."""
    from batuta_cli.pacha.locate import inside_model, locate
    from batuta_cli.pacha.sealed.content import is_encrypted_file, plaintext_name, signatures_beside
    from batuta_cli.pacha.sealed.verified import seal_verified

    found = locate(path)
    encrypted = is_encrypted_file(found.path)
    files, policy, signatures = checks.signatures, checks.policy, list["ModelSignature"]()
    if policy is not None:
        signed = plaintext_name(path, encrypted)
        files = files or [existing_signature(path, found.path, signatures_beside(found, encrypted), signed)]
        signatures, policy = load_all(files, policy)
    size = total_size(found.path)
    work = size and console.WorkSize(2 * size.bytes, size.files)  # each file is copied, then hashed
    with console.progress(f"verifying {path}", work) as advance:
        sealed = seal_verified(
            found,
            signatures,
            policy,
            sealing,
            encrypted=encrypted,
            digest=checks.digest,
            require=checks.require,
            allow_unsigned=[*checks.tolerated, *inside_model(files, found.path)],
            progress=advance,
        )
    if sealed.verification is None:
        console.note(f"{display(path)}: has the digest {checks.digest}; no signature was checked")
        return sealed
    for warning in sealed.verification.warnings:
        console.warn(f"{display(path)}: {warning}")
    console.note(verified_text(path, sealed.verification))
    return sealed


def _warn_of_single_shard(path: str, name: str) -> None:
    shard = _SHARD.fullmatch(name)
    if shard and int(shard[1]) > 1:
        console.warn(
            f"{display(path)}: is one of {int(shard[1])} shards, and the program gets only this one;"
            " run the directory that has all of them"
        )
