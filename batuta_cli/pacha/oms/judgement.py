"""Who signed a bundle that carries a certificate: an own authority's, or a Sigstore one that lived for minutes.

What such a bundle needs to be verified and was not given is an `UnknownSignerError` whose hint names the options.
"""

import contextlib
import importlib.util
import os
import shlex
from collections.abc import Sequence

from cryptography import x509

from batuta_cli.errors import (
    InvalidInputError,
    MissingDependencyError,
    RevokedSignerError,
    SignerError,
    UnknownSignerError,
    VerificationError,
    WrongSignerError,
)
from batuta_cli.files import display, read_limited
from batuta_cli.pacha.oms.certificates import (
    CertificateFacts,
    check_chain,
    check_usage,
    identities,
    key_of,
    load_certificate,
    spki,
)
from batuta_cli.pacha.oms.eckeys import EcVerifyingKey
from batuta_cli.pacha.oms.signature import OmsSignature
from batuta_cli.pacha.signer import Policy, Signer, refuse_revoked

_ROOT_LIMIT = 16 * 1024 * 1024  # bytes; Sigstore's own trusted root has 7 kB


def judge_certificate(signed: OmsSignature, raw: bytes, policy: Policy) -> Signer:
    """The signer of a bundle with a certificate; `raw` is the bundle as it was read.

    Raises:
        VerificationError: the signature is not by the certificate's key, or the transparency log does not hold.
        SignerError: the certificate does not count here, or something was not given that it takes to judge it.
        InvalidInputError, MissingDependencyError.
    """
    certificates = [
        load_certificate(der, f"verificationMaterial: certificate {i}")
        for i, der in enumerate(signed.material.certificates)
    ]
    leaf = certificates[0]
    key = key_of(leaf)
    if len(signed.envelope.signatures) != 1:
        raise InvalidInputError("dsseEnvelope.signatures: a bundle with a certificate has exactly one")
    value = signed.envelope.signatures[0].value
    if not signed.verified_by(key, value):
        raise VerificationError("the signature is wrong: it is not by the key of the certificate in the file")
    refuse_revoked(value, signed, policy)
    if signed.material.method == "sigstore":
        return _judge_keyless(leaf, key, signed, raw, policy)
    authorities = policy.accepted_authorities()
    if not authorities or not policy.identities:
        raise _not_given(leaf, policy, {"--ca FILE": bool(authorities)})
    check_chain(leaf, certificates[1:], authorities, policy.at)
    _check_issuers_not_revoked(leaf, certificates[1:], authorities, policy)
    check_usage(leaf)
    named = next((name for name in policy.identities if name in identities(leaf)), None)
    if named is None:
        raise WrongSignerError(f"signed by {_whom(leaf)}, not by {policy.wanted}")
    return Signer(key, named, certificate=CertificateFacts.of(leaf, judged_at=policy.at))


def _check_issuers_not_revoked(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    policy: Policy,
) -> None:
    """Raise `RevokedSignerError` when every chain from `leaf` to an authority needs a revoked key."""
    revoked = {r.key.spki: r for r in policy.trust.revoked}
    found = [revoked[key] for each in (*intermediates, *authorities) if (key := spki(each)) in revoked]
    if not found:
        return
    remaining = [each for each in authorities if spki(each) not in revoked]
    with contextlib.suppress(UnknownSignerError):
        if remaining:
            check_chain(leaf, [each for each in intermediates if spki(each) not in revoked], remaining, policy.at)
            return
    because = f": {display(found[0].reason)}" if found[0].reason else ""
    raise RevokedSignerError(
        f"the signer's certificate was issued under the key {found[0].key.key_id},"
        f" which was revoked on {found[0].at:%Y-%m-%d}{because}"
    )


def _judge_keyless(
    leaf: x509.Certificate, key: EcVerifyingKey, signed: OmsSignature, raw: bytes, policy: Policy
) -> Signer:
    if policy.trusted_root is None or policy.issuer is None or not policy.identities:
        given = {"--trusted-root FILE": policy.trusted_root is not None, "--issuer URL": policy.issuer is not None}
        raise _not_given(leaf, policy, given)
    if importlib.util.find_spec("sigstore") is None:
        raise MissingDependencyError(
            "verifying a keyless Sigstore signature needs the package sigstore",
            hint="pip install 'batuta-cli[sigstore]'",
        )
    from sigstore.errors import CertValidationError
    from sigstore.errors import Error as SigstoreError
    from sigstore.models import Bundle, InvalidBundle, TrustedRoot
    from sigstore.verify import Verifier
    from sigstore.verify.policy import Identity

    root = os.fspath(policy.trusted_root)
    read_limited(root, _ROOT_LIMIT)  # tells a missing, unreadable or huge file in the usual words
    try:
        verifier = Verifier(trusted_root=TrustedRoot.from_file(root))
    except (ValueError, SigstoreError):
        raise InvalidInputError(
            f"{display(root)}: not a Sigstore trusted root", hint="it is called trusted_root.json"
        ) from None
    try:
        bundle = Bundle.from_json(raw)
    except (ValueError, InvalidBundle) as error:
        raise InvalidInputError(f"not a Sigstore bundle that can be verified: {_short(error)}") from None
    try:
        _, payload = verifier.verify_dsse(bundle, _JudgedBelow())
    except CertValidationError as error:
        raise UnknownSignerError(f"the trusted root does not vouch for the certificate: {_short(error)}") from None
    except SigstoreError as error:
        raise VerificationError(f"the Sigstore bundle does not verify: {_short(error)}") from None
    if payload != signed.envelope.payload:
        raise VerificationError("the Sigstore bundle does not verify: its payload is read in two ways")
    for name in policy.identities:
        with contextlib.suppress(SigstoreError):
            Identity(identity=name, issuer=policy.issuer).verify(bundle.signing_certificate)
            break
    else:
        raise WrongSignerError(
            f"signed by {_whom(leaf)}, whom {display(oidc_issuer(leaf) or 'no issuer')} vouches for, not by"
            f" {policy.wanted} of {display(policy.issuer)}"
        )
    return Signer(key, name, certificate=CertificateFacts.of(leaf, oidc_issuer=policy.issuer))


class _JudgedBelow:
    """A policy of `sigstore` that leaves the identity to a separate check, so that another signer is not reported as a
    wrong signature."""

    def verify(self, _: x509.Certificate) -> None:
        """Accept any certificate."""


def oidc_issuer(leaf: x509.Certificate) -> str | None:
    """The OpenID Connect issuer that a Sigstore certificate names.

    Source: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md, 1.3.6.1.4.1.57264.1.8 (DER text) and .1.
    """
    for oid, is_der in (("1.3.6.1.4.1.57264.1.8", True), ("1.3.6.1.4.1.57264.1.1", False)):
        try:
            extension = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid)).value
        except x509.ExtensionNotFound:
            continue
        if isinstance(extension, x509.UnrecognizedExtension):
            value = extension.value
            if is_der:  # a tag, a length of one byte or of as many as its low bits tell, the text
                value = value[2 + (value[1] & 0x7F if value[1:2] >= b"\x80" else 0) :]
            return value.decode("utf-8", "replace")
    return None


def _not_given(leaf: x509.Certificate, policy: Policy, given: dict[str, bool]) -> SignerError:
    """The error for what is needed and was not given. What the certificate says is offered, never taken as given."""
    options = [option for option, there in given.items() if not there]
    issuer = oidc_issuer(leaf)
    if "--issuer URL" in options and issuer:
        options[options.index("--issuer URL")] = f"--issuer {shlex.quote(display(issuer))}"
    if not policy.identities:
        named = next(iter(identities(leaf)), None)
        options.append(f"--identity {shlex.quote(display(named)) if named else 'ID'}")
    kind = "a keyless Sigstore certificate" if len(given) > 1 else "a certificate"
    return UnknownSignerError(
        f"signed with {kind} that names {_whom(leaf)}; who may sign was not given",
        hint="if that is who should have signed, add: " + " ".join(options),
    )


def _whom(leaf: x509.Certificate) -> str:
    return " alias ".join(map(display, identities(leaf))) or "nothing"


def _short(error: Exception) -> str:
    return display(" ".join(str(error).split())[:200])
