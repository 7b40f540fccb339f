"""The options that say what is verified, who may sign and what else is checked: of `batuta pacha verify` and `run`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from batuta_cli.cli.models import read_stdin, shell_path
from batuta_cli.errors import UsageError, VerificationError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.pacha.signer import Policy
    from batuta_cli.pacha.signing import ModelSignature
    from batuta_cli.pacha.verification import Verification

_SHOWN = 10  # names of files that are left out in the text; --json has all

Signatures = Annotated[
    list[str] | None,
    typer.Option("--signature", metavar="FILE", help="The signature, if it is not PATH.sig; - is stdin."),
]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Accept this public key instead of the trust store's: Ed25519 or ECDSA, a file or TYPE:BASE64."
        " Of several, any is accepted.",
    ),
]
Identities = Annotated[
    list[str] | None,
    typer.Option("--identity", metavar="ID", help="The signer that is required. Of several, any is accepted."),
]
Digest = Annotated[
    str | None,
    typer.Option("--digest", metavar="blake3:HEX|sha256:HEX", help="The content must have this address or digest."),
]
SignedName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The name it must have been signed under.")
]
Require = Annotated[
    int | None,
    typer.Option("--require", metavar="N", min=1, help="How many distinct trusted keys must have signed."),
]
TrustFile = Annotated[
    str | None,
    typer.Option(
        "--trust",
        metavar="FILE",
        help="Accept the keys of this file instead of the trust store's: one of trust export, or allowed_signers.",
    ),
]
Authorities = Annotated[
    list[str] | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Accept certificates that this authority (PEM) issued to --identity, instead of the trust store's.",
    ),
]
TrustedRoot = Annotated[
    str | None,
    typer.Option(
        "--trusted-root", metavar="FILE", help="Accept keyless Sigstore signatures under this trusted_root.json."
    ),
]
Issuer = Annotated[
    str | None,
    typer.Option("--issuer", metavar="URL", help="The OpenID Connect issuer of --identity in a keyless signature."),
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="DATE", help="Judge certificates and expiry at this time, not now (UTC)."),
]
AllowUnsigned = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-unsigned", metavar="hf|git|GLOB", help="Accept unsigned files of these names, and list them."
    ),
]
AllowPacha1 = Annotated[
    bool, typer.Option("--allow-pacha1", help="Accept the Rust crate's signatures, which bind the content only.")
]


@dataclass(frozen=True)
class Checks:
    """What a model must satisfy."""

    policy: "Policy | None"
    """Who may have signed; None when only the digest is compared."""
    digest: Any
    """A `ContentAddress`, a `Sha256Digest` or None."""
    signatures: list[str]
    """The files that were named; empty when the signature beside the model counts."""
    require: int | None
    tolerated: list[str]
    """Globs of files that may be there without being signed."""

    @classmethod
    def of(
        cls,
        paths: Sequence[str],
        *,
        signature: list[str] | None,
        key: list[str] | None,
        identity: list[str] | None,
        digest: str | None,
        name: str | None,
        require: int | None,
        trust_file: str | None,
        ca: list[str] | None,
        trusted_root: str | None,
        issuer: str | None,
        at: str | None,
        allow_unsigned: list[str] | None,
        allow_pacha1: bool,
    ) -> Self:
        """Read the values of the options, and the keys and trust files that they name.

        Raises `UsageError`, `InvalidInputError`, and the errors of reading those files.
        """
        from batuta_cli.pacha import trust
        from batuta_cli.pacha.ignoring import check_globs
        from batuta_cli.pacha.signer import Policy
        from batuta_cli.pacha.trust_sources import effective

        if [*paths, *(signature or []), *(key or []), trust_file].count("-") > 1:
            raise UsageError("stdin can be read once only", hint="name a file instead of the second -")
        for wanted_name in identity or ():
            from batuta_cli.pacha.keys import refuse_invisible

            refuse_invisible(wanted_name)
        wanted = None if digest is None else _digest(digest)
        # An empty text counts as given: an unset shell variable must not switch a check off.
        asked = (key, identity, trust_file, name, require, ca, trusted_root, issuer)
        if wanted is not None and not signature and all(option is None for option in asked):
            return cls(None, wanted, [], None, [])
        policy = Policy(
            effective(None if trust_file is None else _trust_file(trust_file)),
            tuple(map(public_key, key)) if key else None,
            tuple(identity) if identity else None,
            name,
            allow_pacha1=allow_pacha1,
            at=trust.now() if at is None else _date(at),
            authorities=_authorities(ca or []),
            trusted_root=trusted_root,
            issuer=issuer,
        )
        tolerated = [glob for given in allow_unsigned or [] for glob in _TRANSPORTS.get(given, (given,))]
        check_globs(tolerated)
        return cls(policy, wanted, signature or [], require, tolerated)


def _digest(text: str) -> Any:
    from batuta_cli.pacha.sha256 import parse_digest

    return parse_digest(text)


def _date(text: str) -> Any:
    from batuta_cli.cli.pacha_trust import parse_date

    return parse_date(text, "--at")


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


def load_all(files: list[str], policy: "Policy") -> tuple[list["ModelSignature"], "Policy"]:
    """The signatures, and the policy with the configuration's `pacha.allow_pacha1` where it applies.

    The configuration is loaded only for such signatures, because loading it takes longer than verifying a small model.
    """
    from batuta_cli.pacha.pacha1 import Pacha1Signature

    signatures = [_load(file) for file in files]
    if policy.allow_pacha1 or not any(isinstance(signature.body, Pacha1Signature) for signature in signatures):
        return signatures, policy
    from batuta_cli import config

    return signatures, replace(policy, allow_pacha1=config.load().pacha.allow_pacha1)


def existing_signature(path: str, located: str, signatures: Sequence[str], signed: str | None = None) -> str:
    """The first signature of a model that there is.

    Args:
        signed: the path of what is signed, when it is not `path`: the plaintext of an encrypted model.

    Raises:
        VerificationError: there is no signature.
        NotFoundError, OperationError: the model cannot be examined.
    """
    from batuta_cli.files import errors_named

    with errors_named(path):
        os.stat(located)  # a missing model is reported before a missing signature
    signature = next(filter(os.path.lexists, signatures), None)
    if signature is None:
        raise VerificationError(
            f"{display(path)}: there is no signature, {display(signatures[0])} does not exist",
            hint=f"get it from the model's publisher, or name it with --signature FILE; if the model is your own:\n"
            f"  batuta pacha sign {shell_path(signed or path)}",
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


def verified_text(path: str, verified: "Verification", word: str = "verified") -> str:
    """What was verified and who signed it, for people; `word` may have a colour."""
    from batuta_cli.pacha.statement import format_time

    who = " and ".join(map(_signer_text, verified.signers))
    stated = verified.statement
    when = f" on {format_time(stated.created)}" if stated and stated.created else ""
    lines = [f"{display(path)}: {word}, signed by {who}{when}"]
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
