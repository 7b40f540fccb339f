"""Text and structure in roff, for the man macros (groff_man(7)); every character comes out as it was written."""

from collections.abc import Iterable

_SPECIAL = {
    "\\": r"\(rs",
    "-": r"\-",  # roff may print a plain dash as a hyphen, which a shell does not accept
    "'": r"\(aq",
    "`": r"\(ga",
    "^": r"\(ha",
    "~": r"\(ti",
    '"': r"\(dq",
}


def escape(text: str) -> str:
    """Text that roff prints as it is: no escapes, no requests at the beginning of a line."""
    escaped = "".join(_SPECIAL.get(c, c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)
    return "\n".join(rf"\&{line}" if line.startswith(".") else line for line in escaped.split("\n"))


def bold(text: str) -> str:
    """Words to be typed as they are."""
    return rf"\fB{escape(text)}\fR"


def italic(text: str) -> str:
    """Words that stand for others."""
    return rf"\fI{escape(text)}\fR"


def header(page: str) -> str:
    """The beginning of a page in section 1."""
    title = f'.TH {escape(page.upper())} 1 "" batuta "User Commands"'
    return "\n".join(('.\\" Generated from the commands by `make docs`.', title, ".nh", ".ad l"))


def section(title: str, *body: str) -> str:
    """A section and what is in it."""
    return "\n".join((f'.SH "{title}"', *body))


def subsection(title: str) -> str:
    """The heading of a subsection."""
    return f'.SS "{escape(title)}"'


def paragraphs(text: str) -> list[str]:
    """Plain text, whose paragraphs are apart by an empty line."""
    return [line for paragraph in text.split("\n\n") for line in (".PP", escape(paragraph))]


def tagged(tag: str, body: str) -> str:
    """A term and its explanation; both are roff already."""
    return f".TP\n{tag}\n{body}"


def example(lines: Iterable[str]) -> str:
    """Lines to be typed, never filled."""
    return "\n".join((".PP", ".RS 4", ".nf", *map(escape, lines), ".fi", ".RE"))
