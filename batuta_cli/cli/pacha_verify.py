"""`batuta pacha verify`: whether models are what was signed, and whether their signers are trusted."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, examples
from batuta_cli.cli.many import Done, for_each
from batuta_cli.cli.models import located_size, read_stdin, shell_path, total_size, warn_of_pointers
from batuta_cli.errors import UsageError, VerificationError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.pacha.signer import Policy
    from batuta_cli.pacha.signing import ModelSignature

commands = typer.Typer()

_SHOWN = 10  # names of files that are left out in the text; --json has all


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
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Accept this public key instead of the trust store's: Ed25519 or ECDSA, a file or TYPE:BASE64."
            " Of several, any is accepted.",
        ),
    ] = None,
    identity: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="The signer that is required. Of several, any is accepted."),
    ] = None,
    digest: Annotated[
        str | None, typer.Option(metavar="blake3:HEX|sha256:HEX", help="The content must have this address or digest.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The name it must have been signed under.")] = None,
    require: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many distinct trusted keys must have signed.")
    ] = None,
    trust_file: Annotated[
        str | None,
        typer.Option(
            "--trust",
            metavar="FILE",
            help="Accept the keys of this file instead of the trust store's: one of trust export, or allowed_signers.",
        ),
    ] = None,
    ca: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Accept certificates that this authority (PEM) issued to --identity, instead of the trust store's.",
        ),
    ] = None,
    trusted_root: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Accept keyless Sigstore signatures under this trusted_root.json."),
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="The OpenID Connect issuer of --identity in a keyless signature.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="DATE", help="Judge certificates and expiry at this time, not now (UTC).")
    ] = None,
    allow_unsigned: Annotated[
        list[str] | None,
        typer.Option(metavar="hf|git|GLOB", help="Accept unsigned files of these names, and list them."),
    ] = None,
    allow_pacha1: Annotated[
        bool, typer.Option("--allow-pacha1", help="Accept the Rust crate's signatures, which bind the content only.")
    ] = False,
) -> console.CommandResult:
    """Verify models: exit 0 only when the content is intact and the signer is trusted."""
    from batuta_cli.cli.pacha_trust import parse_date
    from batuta_cli.pacha import trust
    from batuta_cli.pacha.ignoring import check_globs
    from batuta_cli.pacha.sha256 import parse_digest
    from batuta_cli.pacha.signer import Policy
    from batuta_cli.pacha.trust_sources import effective

    if signature and len(paths) > 1:
        raise UsageError("--signature takes one PATH", hint="verify them one by one")
    if [*paths, *(signature or []), *(key or []), trust_file].count("-") > 1:
        raise UsageError("stdin can be read once only", hint="name a file instead of the second -")
    for wanted_name in identity or ():
        from batuta_cli.pacha.keys import refuse_invisible

        refuse_invisible(wanted_name)
    wanted = None if digest is None else parse_digest(digest)
    # An empty text counts as given: an unset shell variable must not switch a check off.
    asked = (key, identity, trust_file, name, require, ca, trusted_root, issuer)
    if wanted is not None and not signature and all(option is None for option in asked):
        return for_each(paths, lambda path: _verify_digest(path, wanted), size=located_size)
    policy = Policy(
        effective(None if trust_file is None else _trust_file(trust_file)),
        tuple(map(public_key, key)) if key else None,
        tuple(identity) if identity else None,
        name,
        allow_pacha1=allow_pacha1,
        at=trust.now() if at is None else parse_date(at, "--at"),
        authorities=_authorities(ca or []),
        trusted_root=trusted_root,
        issuer=issuer,
    )
    tolerated = [glob for given in allow_unsigned or [] for glob in _TRANSPORTS.get(given, (given,))]
    check_globs(tolerated)

    def one(path: str) -> Done:
        try:
            return _verify_signature(path, signature or [], policy, wanted, require, tolerated)
        except VerificationError:
            warn_of_pointers(path, path, follow_symlinks=True)
            raise

    return for_each(paths, one, size=located_size)


_TRANSPORTS = {
    "hf": (".cache/huggingface/**",),  # `hf download --local-dir` keeps its metadata there
    "git": (".git/**", ".gitattributes", ".gitignore", ".github/**"),
}
"""Files that transports add to a model's directory."""


def public_key(text: str) -> Any:
    """The public key that --key names: a file, - for stdin, or TYPE:BASE64."""
    from batuta_cli.pacha.keyring import read_any_public_file
    from batuta_cli.pacha.keys import KEY_FILE_LIMIT
    from batuta_cli.pacha.oms.eckeys import is_inline, parse_public_key

    if text == "-":
        return parse_public_key(read_stdin(KEY_FILE_LIMIT), "stdin")
    return parse_public_key(text.encode()) if is_inline(text) else read_any_public_file(text)


def _trust_file(file: str) -> Any:
    from batuta_cli.pacha.trust_files import TRUST_FILE_LIMIT, parse_trust, read_trust_file

    return parse_trust(read_stdin(TRUST_FILE_LIMIT), "stdin") if file == "-" else read_trust_file(file)


def _authorities(files: list[str]) -> tuple[Any, ...]:
    if not files:
        return ()
    from batuta_cli.pacha.oms.certificates import load_authorities

    return tuple(certificate for file in files for certificate in load_authorities(file))


def _load(file: str) -> "ModelSignature":
    from batuta_cli.pacha.envelope import SIGNATURE_FILE_LIMIT
    from batuta_cli.pacha.signing import ModelSignature

    if file == "-":
        return ModelSignature.parse(read_stdin(SIGNATURE_FILE_LIMIT))
    return ModelSignature.load(file)


def _load_all(files: list[str], policy: "Policy") -> tuple[list["ModelSignature"], "Policy"]:
    """The signatures, and the policy with the configuration's `pacha.allow_pacha1` where it applies.

    The configuration is loaded only for such signatures, because loading it takes longer than verifying a small model.
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
    from batuta_cli.pacha.sha256 import Sha256Digest, sha256_of, sha256_of_stream

    is_sha256 = isinstance(wanted, Sha256Digest)
    if path == "-":
        found = sha256_of_stream(0, "stdin") if is_sha256 else hash_stream(0, "stdin")
    else:
        located = locate(path).path
        with console.progress(f"verifying {path}", total_size(located)) as advance:
            found = sha256_of(located, advance) if is_sha256 else content_address(located, progress=advance)
    _match(path, found, wanted)
    kind = "digest" if is_sha256 else "address"
    text = f"{display(path)}: has the {kind} {wanted}; no signature was checked"
    return Done({kind: str(found), "signers": [], "binds": ["content"]}, text)


def _match(path: str, found: Any, wanted: Any) -> None:
    from batuta_cli.pacha.hashing import ContentAddress

    if found != wanted:
        kind = "address" if isinstance(wanted, ContentAddress) else "digest"
        raise VerificationError(f"{display(path)}: the content is {found}, not {wanted}", result={kind: str(found)})


def _verify_signature(
    path: str, files: list[str], policy: "Policy", wanted: Any, require: int | None, tolerated: list[str]
) -> Done:
    from batuta_cli.pacha.content import ModelContent
    from batuta_cli.pacha.hashing import ContentAddress
    from batuta_cli.pacha.locate import locate
    from batuta_cli.pacha.sha256 import Sha256Digest, sha256_of
    from batuta_cli.pacha.verification import read_stream, verify_all, whole_address

    is_sha256 = isinstance(wanted, Sha256Digest)
    if path == "-":
        if not files:
            raise UsageError("the signature of stdin must be named", hint="--signature FILE")
        signatures, policy = _load_all(files, policy)
        sha256 = hashlib.sha256()
        hashed = read_stream(0, "stdin", signatures, also=[sha256.update] if is_sha256 else [])
        verified = verify_all(hashed, signatures, policy, label="-", actual_name=None, require=require)
        whole: Any = Sha256Digest(sha256.digest()) if is_sha256 else ContentAddress(hashed.resource.digest)
    else:
        found = locate(path)
        files = files or [_existing(path, found.path, found.signatures)]
        signatures, policy = _load_all(files, policy)
        with console.progress(f"verifying {path}", total_size(found.path)) as advance:
            model = ModelContent(found.path, advance)
            verified = verify_all(
                model,
                signatures,
                policy,
                label=path,
                actual_name=found.name,
                require=require,
                allow_unsigned=[*tolerated, *_inside(files, found.path)],
            )
            whole = None
            if is_sha256:
                whole = sha256_of(found.path, advance)
            elif wanted is not None:
                whole = whole_address(found.path, verified, advance)
            stored = None if found.address is None else whole_address(found.path, verified, advance)
        if found.address is not None:
            _match(path, stored, found.address)
    if wanted is not None:
        _match(path, whole, wanted)
    for warning in verified.warnings:
        console.warn(f"{display(path)}: {warning}")
    return Done(verified.as_dict() | {"signature": files}, _verified_text(path, verified))


def _inside(files: Sequence[str], model: str) -> list[str]:
    """Globs of the signatures that lie inside the model, which they cannot be over themselves."""
    from glob import escape

    root = os.path.join(os.path.realpath(model), "")
    places = [os.path.realpath(file) for file in files if file != "-"]
    return [escape(place.removeprefix(root)) for place in places if place.startswith(root)]


def _existing(path: str, located: str, signatures: Sequence[str]) -> str:
    from batuta_cli.files import errors_named

    with errors_named(path):
        os.stat(located)  # a missing model is reported before a missing signature
    signature = next(filter(os.path.lexists, signatures), None)
    if signature is None:
        raise VerificationError(
            f"{display(path)}: there is no signature, {display(signatures[0])} does not exist",
            hint=f"get it from the model's publisher, or name it with --signature FILE; if the model is your own:\n"
            f"  batuta pacha sign {shell_path(path)}",
        )
    return signature


def _signer_text(signer: Any) -> str:
    certificate = signer.certificate
    if certificate is not None and certificate.oidc_issuer:
        return f"{display(signer.name)} (keyless, {display(certificate.oidc_issuer)} vouches)"
    if certificate is not None:
        judged = certificate.judged_at.strftime("%Y-%m-%d %H:%M:%SZ")
        return f"{display(signer.name)} (certificate of {display(certificate.issuer)}, valid at {judged})"
    if signer.claimed:
        return f"the key {signer.key.key_id}, which calls itself {display(signer.name)}"
    return f"{display(signer.name or 'a key without a name')} (key {signer.key.key_id})"


_UNBOUND = {"name": "what the model is called", "identity": "who signed", "time": "when it was signed"}


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
    if verified.unsigned:
        shown = [display(name) for name in verified.unsigned[:_SHOWN]]
        shown += [f"and {len(verified.unsigned) - _SHOWN:,} more"] if len(verified.unsigned) > _SHOWN else []
        lines.append("  not signed, and tolerated: " + ", ".join(shown))
    unbound = [words for what, words in _UNBOUND.items() if what not in verified.binds]
    if len(unbound) == len(_UNBOUND):
        lines.append("  the signature binds the content only, not name, signer or time")
    elif unbound:
        lines.append(f"  the signature does not say {' or '.join(unbound)}")
    if verified.unknown_keys:
        lines.append("  also signed by unknown keys: " + ", ".join(display(k) or "?" for k in verified.unknown_keys))
    return "\n".join(lines)
