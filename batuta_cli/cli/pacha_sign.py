"""`batuta pacha sign` and `batuta pacha verify`."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.many import Done, for_each
from batuta_cli.cli.models import FollowSymlinks, Ignore, opened, read_stdin, shell_path, total_size, warn_of_unmatched
from batuta_cli.errors import UsageError, VerificationError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.pacha.keyring import OwnKey
    from batuta_cli.pacha.signer import Policy
    from batuta_cli.pacha.signing import ModelSignature

commands = typer.Typer()

_SHOWN = 10  # names of files that are left out in the text; --json has all


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta pacha sign model.gguf",
        "batuta pacha sign ./llama-3/ --identity release --expires 365",
        "batuta pacha sign model.gguf --key env:SIGNING_KEY --identity ci@example.com",
    ),
)
def sign(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Model files or directories.")],
    identity: Annotated[
        str | None, typer.Option(metavar="ID", help="Which of your keys; with --key, the name to sign as.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FILE|env:VAR|-", help="A private key from elsewhere; - is stdin.")
    ] = None,
    passphrase_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="The variable that holds the key's passphrase.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; - is stdout.")
    ] = None,
    expires: Annotated[
        int | None, typer.Option(metavar="DAYS", min=1, max=36_500, help="The signature counts for so many days.")
    ] = None,
    ignore: Ignore = None,
    follow_symlinks: FollowSymlinks = False,
    format: Annotated[
        str, typer.Option(metavar="bundle|pacha1", help="A Sigstore bundle, or the Rust crate's format.")
    ] = "bundle",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing signature.")] = False,
) -> console.CommandResult:
    """Sign models; the signature is written beside each as PATH.sig."""
    from batuta_cli.cli import secrets
    from batuta_cli.files import atomic_output
    from batuta_cli.pacha import signing, trust
    from batuta_cli.pacha.ignoring import check_globs
    from batuta_cli.pacha.locate import locate
    from batuta_cli.pacha.signer import check_may_sign

    check_globs(ignore or ())
    if format not in ("bundle", "pacha1"):
        raise UsageError(f"no such signature format: {display(format)}", hint="bundle or pacha1")
    if output is not None and len(paths) > 1:
        raise UsageError("--output takes one PATH", hint="sign them one by one, or leave --output out")
    if "-" in paths:
        raise UsageError("stdin cannot be signed, it has no name", hint="write it to a file first")
    store, start = trust.load(), trust.now()
    if key is None:
        own = _own_key(identity)
        check_may_sign(own.public, store, start)  # before a passphrase is asked for
        signing_key = secrets.signing_key(str(own.path), passphrase_env=passphrase_env, identity=own.identity)
    else:
        signing_key = secrets.signing_key(key, passphrase_env=passphrase_env, identity=identity)
    check_may_sign(signing_key.verifying_key, store, start)

    def one(path: str) -> Done:
        found = locate(path)
        target = found.signature if output is None else output
        inside = _place_inside(target, found.path, ignore or ())
        warn_of_unmatched(path, found.path, ignore or (), inside)
        options: dict[str, Any] = {
            "expires_days": expires,
            "ignore": ignore or (),
            "ignore_paths": inside,
            "follow_symlinks": follow_symlinks,
            "format": format,
        }
        with console.progress(f"signing {path}", total_size(found.path)) as advance:
            if target == "-":
                signature = signing.sign_path(found.path, signing_key, name=found.name, progress=advance, **options)
            else:
                with opened(found.path) as inputs, contextlib.ExitStack() as writing:
                    out = atomic_output(target, force=force, inputs=inputs)
                    if not inside:
                        writing.enter_context(out)
                    signature = signing.sign_path(found.path, signing_key, name=found.name, progress=advance, **options)
                    if inside:  # opened only now: where it has a hidden name while it is written, it would be signed
                        writing.enter_context(out)
                    out.write(signature.raw)
        public = signing_key.verifying_key
        result = {
            "signature": target,
            "address": str(signature.address),
            "identity": signing_key.identity,
            "key_id": public.key_id,
            "format": format,
        }
        if target == "-":
            text = signature.raw.decode()
            return Done(result | {"text": text}, text.rstrip("\n"))
        who = f"{display(signing_key.identity or 'a key without a name')} (key {public.key_id})"
        return Done(result, f"{display(path)}: signed by {who}, signature in {display(target)}")

    return for_each(paths, one)


def _place_inside(target: str, model: str, ignore: Sequence[str]) -> tuple[str, ...]:
    """The path inside the model that covers the signature, when that is written there; else nothing.

    Raises `UsageError` for a signature that would be one file more in the directory that it signs.
    """
    from glob import escape

    from batuta_cli.pacha.ignoring import matching_part

    root, place = os.path.realpath(model), os.path.realpath(target)
    if target == "-" or not os.path.isdir(root) or not place.startswith(os.path.join(root, "")):
        return ()
    name = os.path.relpath(place, root)
    covered = matching_part(ignore, name)
    if covered is None:
        raise UsageError(
            f"{display(target)}: lies inside the model, which would change with it",
            hint=f"choose another --output, or leave it out of the model: --ignore {shell_path(escape(name))}",
        )
    return (covered,)


def _own_key(identity: str | None) -> "OwnKey":
    from batuta_cli.pacha import keyring

    if identity is not None:
        return keyring.find_own(identity)
    from batuta_cli import config

    return keyring.choose_own(config.load().pacha.default_key)


@commands.command(
    cls=Command,
    epilog=examples(
        "batuta pacha verify model.gguf",
        "batuta pacha verify model.gguf --identity alice@example.com --name model.gguf",
        "batuta pacha verify model.gguf --key alice.pub --quiet && ./serve model.gguf",
        "batuta pacha verify model.gguf --signature a.sig --signature b.sig --require 2",
    ),
)
def verify(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Models, store names or addresses; - is stdin.")
    ],
    signature: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="The signature, if it is not PATH.sig; - is stdin.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Accept this public key alone: a file, or ed25519:BASE64.")
    ] = None,
    identity: Annotated[str | None, typer.Option(metavar="ID", help="Who must have signed.")] = None,
    digest: Annotated[
        str | None, typer.Option(metavar="blake3:HEX", help="The content must have this address.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The name it must have been signed under.")] = None,
    require: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many distinct trusted keys must have signed.")
    ] = None,
    allow_pacha1: Annotated[
        bool, typer.Option("--allow-pacha1", help="Accept the Rust crate's signatures, which bind the content only.")
    ] = False,
) -> console.CommandResult:
    """Verify models: exit 0 only when the content is intact and the signer is trusted."""
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.hashing import ContentAddress
    from batuta_cli.pacha.signer import Policy

    if signature and len(paths) > 1:
        raise UsageError("--signature takes one PATH", hint="verify them one by one")
    if [*paths, *(signature or []), key].count("-") > 1:
        raise UsageError("stdin can be read once only", hint="name a file instead of the second -")
    if identity is not None:
        from batuta_cli.pacha.keys import refuse_invisible

        refuse_invisible(identity)
    wanted = None if digest is None else ContentAddress.parse(digest)
    # An empty text is something that was asked for: a variable that is not set must not switch a check off.
    if wanted is not None and not signature and (key, identity, name, require) == (None, None, None, None):
        return for_each(paths, lambda path: _verify_digest(path, wanted))
    policy = Policy(trust.load(), _public_key(key), identity, name, allow_pacha1=allow_pacha1)
    return for_each(paths, lambda path: _verify_signature(path, signature or [], policy, wanted, require))


def _public_key(text: str | None) -> Any:
    if text is None:
        return None
    from batuta_cli.pacha.keyring import read_public_file
    from batuta_cli.pacha.keys import INLINE_PREFIX, KEY_FILE_LIMIT, VerifyingKey

    if text == "-":
        return VerifyingKey.parse(read_stdin(KEY_FILE_LIMIT), "stdin")
    return VerifyingKey.parse(text.encode()) if text.startswith(INLINE_PREFIX) else read_public_file(text)


def _load(file: str) -> "ModelSignature":
    from batuta_cli.pacha.envelope import SIGNATURE_FILE_LIMIT
    from batuta_cli.pacha.signing import ModelSignature

    if file == "-":
        return ModelSignature.parse(read_stdin(SIGNATURE_FILE_LIMIT))
    return ModelSignature.load(file)


def _load_all(files: list[str], policy: "Policy") -> tuple[list["ModelSignature"], "Policy"]:
    """The signatures, and the policy with what the configuration has to say about such signatures.

    It has something to say about the Rust crate's alone, and loading it takes longer than verifying a small model.
    """
    from batuta_cli.pacha.pacha1 import Pacha1Signature

    signatures = [_load(file) for file in files]
    if policy.allow_pacha1 or not any(isinstance(signature.body, Pacha1Signature) for signature in signatures):
        return signatures, policy
    from batuta_cli import config

    return signatures, replace(policy, allow_pacha1=config.load().pacha.allow_pacha1)


def _verify_digest(path: str, wanted: Any) -> Done:
    from batuta_cli.pacha.hashing import content_address, hash_stream
    from batuta_cli.pacha.locate import locate

    if path == "-":
        address = hash_stream(0, "stdin")
    else:
        found = locate(path)
        with console.progress(f"verifying {path}", total_size(found.path)) as advance:
            address = content_address(found.path, progress=advance)
    _match(path, address, wanted)
    text = f"{display(path)}: has the address {wanted}; no signature was checked"
    return Done({"address": str(address), "signers": [], "binds": ["content"]}, text)


def _match(path: str, address: Any, wanted: Any) -> None:
    if address != wanted:
        raise VerificationError(
            f"{display(path)}: the content is {address}, not {wanted}", result={"address": str(address)}
        )


def _verify_signature(path: str, files: list[str], policy: "Policy", wanted: Any, require: int | None) -> Done:
    from batuta_cli.pacha.content import HashedModel, ModelContent
    from batuta_cli.pacha.hashing import Resource, hash_stream_counting
    from batuta_cli.pacha.locate import locate
    from batuta_cli.pacha.verification import verify_all, whole_address

    if path == "-":
        if not files:
            raise UsageError("the signature of stdin must be named", hint="--signature FILE")
        signatures, policy = _load_all(files, policy)
        size, address = hash_stream_counting(0, "stdin")
        hashed = HashedModel(Resource(".", size, address.digest))
        verified = verify_all(hashed, signatures, policy, label="-", actual_name=None, require=require)
        whole, stored = verified.address, None
    else:
        found = locate(path)
        files = files or [_existing(path, found.path, found.signature)]
        signatures, policy = _load_all(files, policy)
        with console.progress(f"verifying {path}", total_size(found.path)) as advance:
            model = ModelContent(found.path, advance)
            verified = verify_all(model, signatures, policy, label=path, actual_name=found.name, require=require)
            whole = verified.address if wanted is None else whole_address(found.path, verified, advance)
        stored = found.address
    if wanted is not None:
        _match(path, whole, wanted)
    if stored is not None:
        _match(path, verified.address, stored)
    for warning in verified.warnings:
        console.warn(f"{display(path)}: {warning}")
    return Done(verified.as_dict() | {"signature": files}, _verified_text(path, verified))


def _existing(path: str, located: str, signature: str) -> str:
    from batuta_cli.files import errors_named

    with errors_named(path):
        os.stat(located)  # a missing model is reported before a missing signature
    if not os.path.lexists(signature):
        raise VerificationError(
            f"{display(path)}: there is no signature, {display(signature)} does not exist",
            hint=f"get it from the model's publisher, or name it with --signature FILE; if the model is your own:\n"
            f"  batuta pacha sign {shell_path(path)}",
        )
    return signature


def _signer_text(signer: Any) -> str:
    if signer.claimed:
        return f"the key {signer.key.key_id}, which calls itself {display(signer.name)}"
    return f"{display(signer.name or 'a key without a name')} (key {signer.key.key_id})"


def _verified_text(path: str, verified: Any) -> str:
    from batuta_cli.pacha.statement import format_time

    who = " and ".join(map(_signer_text, verified.signers))
    stated = verified.statement
    when = f" on {format_time(stated.created)}" if stated and stated.created else ""
    lines = [f"{display(path)}: {console.paint('verified', 'good')}, signed by {who}{when}"]
    if verified.ignored:
        shown = [display(name) for name in verified.ignored[:_SHOWN]]
        shown += [f"and {len(verified.ignored) - _SHOWN:,} more"] if len(verified.ignored) > _SHOWN else []
        lines.append("  not covered by the signature: " + ", ".join(shown))
    if stated is None:
        lines.append("  the signature binds the content only, not name, signer or time")
    if verified.unknown_keys:
        lines.append("  also signed by unknown keys: " + ", ".join(display(k) or "?" for k in verified.unknown_keys))
    return "\n".join(lines)
