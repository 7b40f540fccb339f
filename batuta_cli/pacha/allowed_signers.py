"""Reads OpenSSH `allowed_signers` files as trusted keys.

Source: ssh-keygen(1), ALLOWED SIGNERS. One line names principals, options, a key type and a key in Base64.

A line that would trust more than one name is refused, and so is a restriction that batuta cannot keep: wildcards and
negations in a principal, several principals, `cert-authority`, `namespaces`, and unknown options. An error names the
line.
"""

import datetime as dt
import re

from batuta_cli.errors import InvalidInputError
from batuta_cli.files import display
from batuta_cli.pacha.keys import check_identity
from batuta_cli.pacha.oms.eckeys import parse_public_key
from batuta_cli.pacha.trust import TrustedKey, TrustStore

_LINE = re.compile(
    r"""(?P<principals>"[^"]*"|\S+)[ \t]+
        (?:(?P<options>(?:[^\s",]|"[^"]*"|,)+)[ \t]+)?
        (?P<type>(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+)[ \t]+(?P<key>[A-Za-z0-9+/=]+)(?:[ \t].*)?""",
    re.VERBOSE,
)
_OPTION = re.compile(r'([A-Za-z-]+)(?:="([^"]*)"|=([^",]*))?(?:,|$)')
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z?)")
_TIME_OPTIONS = ("valid-after", "valid-before")


def parse_allowed_signers(text: str, source: str, added: dt.datetime) -> TrustStore:
    """The keys of an `allowed_signers` file. `source` names it in errors, `added` is the time to record.

    Raises `InvalidInputError` that names the line.
    """
    store = TrustStore()
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            entry = _entry(stripped, added)
            if store.find(entry.key):
                raise InvalidInputError("the key is in an earlier line as well")
            store = store.with_key(entry)
        except InvalidInputError as error:
            raise InvalidInputError(f"{source}: line {number}: {error.message}", hint=error.hint) from None
    return store


def _entry(line: str, added: dt.datetime) -> TrustedKey:
    match = _LINE.fullmatch(line)
    if match is None:
        raise InvalidInputError("not a line of an allowed_signers file", hint="PRINCIPAL ssh-ed25519 BASE64")
    options = _options(match["options"] or "")
    key = parse_public_key(f"{match['type']} {match['key']}".encode(), "the key")
    valid_from, valid_until = (_time(name, options.get(name)) for name in _TIME_OPTIONS)
    return TrustedKey(_principal(match["principals"].strip('"')), key, added, valid_from, valid_until)


def _principal(text: str) -> str:
    if set(text) & set("*?!"):
        raise InvalidInputError(
            f"the principal {display(text)} is a pattern; a key is trusted under one exact name",
            hint="replace the pattern by the signer's name",
        )
    if "," in text:
        raise InvalidInputError(
            f"several principals: {display(text)}; a key is trusted under one exact name", hint="keep one of them"
        )
    return check_identity(text)


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _OPTION.match(text, at)
        if match is None:
            raise InvalidInputError(f"the options {display(text)} cannot be read")
        name = match[1].lower()
        if name == "cert-authority":
            raise InvalidInputError("cert-authority: an SSH certificate authority cannot be trusted here")
        if name == "namespaces":
            raise InvalidInputError(
                f"namespaces: the key is limited to {display(match[2] or match[3] or '')}, which are not model files",
                hint="remove the option if the key may sign models",
            )
        if name not in _TIME_OPTIONS:
            raise InvalidInputError(f"unknown option {display(name)}")
        options[name] = match[2] if match[2] is not None else match[3] or ""
        at = match.end()
    return options


def _time(option: str, text: str | None) -> dt.datetime | None:
    """`YYYYMMDD[HHMM[SS]][Z]`, in the time zone of the system without the Z, as ssh-keygen(1) has it."""
    if text is None:
        return None
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        time = dt.datetime(*(int(part or 0) for part in match.groups()[:6]))  # type: ignore[arg-type]
    except ValueError:
        raise InvalidInputError(f"{option}: {display(text)} is not a time", hint="YYYYMMDD[HHMM[SS]][Z]") from None
    return time.replace(tzinfo=dt.UTC) if match[7] else time.astimezone(dt.UTC)
