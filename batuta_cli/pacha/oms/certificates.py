"""X.509 certificates that OpenSSF Model Signing bundles carry: their chain, what they are for, whom they name.

The path is validated by `cryptography.x509.verification` (RFC 5280 section 6) at a given time, not at the time the
certificate itself names, so that an expired certificate does not count. Its extension policies are those of a
certificate for signing, not for a web server: issuers must be authorities that may sign certificates, and whether the
signer's own certificate may sign models is checked here.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from batuta_cli.errors import (
    ExpiredSignatureError,
    InvalidInputError,
    SignerError,
    UnknownSignerError,
)
from batuta_cli.files import StrPath, display, read_limited
from batuta_cli.pacha.oms.eckeys import EcVerifyingKey

_FILE_LIMIT = 4 * 1024 * 1024  # bytes; the bundle of all public web authorities has 250 kB


@dataclass(frozen=True, kw_only=True)
class CertificateFacts:
    """What a certificate says, and when that was judged. Times are UTC, names as RFC 4514 writes them."""

    subject: str
    issuer: str
    serial: str
    """Hexadecimal."""
    not_before: dt.datetime
    not_after: dt.datetime
    judged_at: dt.datetime | None = None
    """The time at which it had to be valid; None for a keyless one, which a transparency log dates."""
    oidc_issuer: str | None = None
    """Of a keyless one: which OpenID Connect provider vouched for the identity."""

    @classmethod
    def of(
        cls, certificate: x509.Certificate, *, judged_at: dt.datetime | None = None, oidc_issuer: str | None = None
    ) -> "CertificateFacts":
        """The facts of a certificate."""
        return cls(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            serial=f"{certificate.serial_number:x}",
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            judged_at=judged_at,
            oidc_issuer=oidc_issuer,
        )


def load_authorities(path: StrPath) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file. Raises `InvalidInputError`, and as `read_limited`."""
    data = read_limited(path, _FILE_LIMIT)
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError:
        raise InvalidInputError(
            f"{display(path)}: not a file of certificates in PEM", hint="--key FILE names a public key"
        ) from None


def load_certificate(der: bytes, where: str) -> x509.Certificate:
    """A certificate from a bundle. Raises `InvalidInputError` that names the field, also for a damaged extension."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions, certificate.subject, certificate.issuer
    except (ValueError, x509.DuplicateExtension):
        raise InvalidInputError(f"{where}: not a certificate, or a damaged one") from None
    return certificate


def key_of(certificate: x509.Certificate) -> EcVerifyingKey:
    """The certificate's key. Raises `InvalidInputError` unless it is ECDSA on a supported curve."""
    try:
        key = certificate.public_key()
    except ValueError:
        raise InvalidInputError("the signer's certificate: a damaged or unknown public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidInputError("the signer's certificate: its key is not ECDSA, which is the only kind supported")
    return EcVerifyingKey.of(key, "the signer's certificate")


def spki(certificate: x509.Certificate) -> bytes | None:
    """The certificate's key as SPKI DER, as `EcVerifyingKey` has it; None for a key that cannot be read."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def identities(certificate: x509.Certificate) -> tuple[str, ...]:
    """Whom a certificate names: its alternative names (email, URI, DNS), then its whole subject."""
    found: list[str] = []
    extension = _extension(certificate, x509.SubjectAlternativeName)
    if extension is not None:
        for kind in (x509.RFC822Name, x509.UniformResourceIdentifier, x509.DNSName):
            found += extension.get_values_for_type(kind)
    subject = certificate.subject.rfc4514_string()
    return tuple(dict.fromkeys([*found, *([subject] if subject else [])]))


def _extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def check_chain(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    at: dt.datetime,
) -> None:
    """Raise `SignerError` unless a path of valid certificates leads from `leaf` to one of `authorities` at `at`."""
    if not leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc:
        raise ExpiredSignatureError(
            f"the signer's certificate is valid from {_day(leaf.not_valid_before_utc)} to"
            f" {_day(leaf.not_valid_after_utc)}, not at {_day(at)}",
            hint="if you know when the model was signed, --at DATE judges the certificate at that time",
        )
    builder = verification.PolicyBuilder().store(verification.Store(list(authorities))).time(at.replace(tzinfo=None))
    verifier = builder.extension_policies(ca_policy=_issuers(), ee_policy=_signers()).build_client_verifier()
    try:
        verifier.verify(leaf, list(intermediates))
    except verification.VerificationError as error:
        raise UnknownSignerError(
            "no valid chain leads from the signer's certificate, issued by"
            f" {display(leaf.issuer.rfc4514_string())}, to the authorities given: {_reason(error)}",
            hint="--ca FILE names the certificate authority of this signer",
        ) from None


def _issuers() -> verification.ExtensionPolicy:
    either = verification.Criticality.AGNOSTIC
    return (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, either, None)  # the path validation itself demands ca and the length
        .may_be_present(x509.KeyUsage, either, _may_sign_certificates)
    )


def _may_sign_certificates(_: Any, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an issuer's certificate may not sign certificates")


def _signers() -> verification.ExtensionPolicy:
    return verification.ExtensionPolicy.permit_all()


def check_usage(leaf: x509.Certificate) -> None:
    """Raise `SignerError` unless a certificate may sign models.

    A key usage that is there must name digitalSignature, an extended one codeSigning (RFC 5280 sections 4.2.1.3 and
    4.2.1.12); one of the two must be there.
    """
    usage = _extension(leaf, x509.KeyUsage)
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    wanted = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if usage is None and extended is None:
        raise SignerError("the signer's certificate does not say that it may sign: neither key usage is in it")
    if usage is not None and not usage.digital_signature:
        raise SignerError("the signer's certificate may not sign: its key usage lacks digitalSignature")
    if extended is not None and wanted.isdisjoint(extended):
        raise SignerError("the signer's certificate may not sign code: its extended key usage lacks codeSigning")


def _day(time: dt.datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ")


def _reason(error: Exception) -> str:
    text = str(error).partition(" (encountered processing")[0]
    return display(text.removeprefix("validation failed: ").removeprefix("candidates exhausted: ")[:200])
