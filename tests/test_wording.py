"""Prose is plain technical English: phrases that hide the subject or the standard term are refused.

Checked are documents, man pages, and the strings and comments of Python files. Of a document, code between backquotes
and fenced blocks are not prose.
"""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("[CS]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS += sorted((ROOT / "batuta_cli").rglob("README.md"))
DOCUMENTS += sorted((ROOT / "man").iterdir())

CODE = sorted(path for folder in ("batuta_cli", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

REFUSED = {
    r"\b(?:is|are|was|were) (?-i:none)\b": "say what is invalid or missing",
    r"\b(?:who|what|which|where|when|how)(?:so)?ever\b(?! (?:the )?(?:number|date)\b)": "name the subject",
    r"\b(?:no|some|any|every)body\b": "name the user, client, process or attacker",
    r"\blest\b": "say so that … not",
    r"\bwhat (?:came|comes|lies|stands)\b": "name the thing",
    r"\b(?:lies|stands) (?:in|there|beside|behind)\b": "say is",
    r"\bof (?:one's|its|their|his) own\b(?! name)": "say separate, or name the owner",
    r"\bas (?:it|they) (?:is|are|was|were) wont\b": "say usually",
    r"\b(?:goes|go) by\b": "say uses, or is recognised by",
    r"\bis about to be\b": "say will be",
    r"\bno (?:byte|word|sound) of\b": "say nothing is sent",
    r"\bfor good\b": "say permanently",
    r"\b(?:anew|thereof|therein|whence|thence|hither|thither|whilst|amongst|nought|naught)\b": "use the common word",
    r"\b(?:a|the) stranger(?:'s|s)?\b": "say untrusted",
    r"\b(?:dies|die) in (?:the )?mid": "say fails",
    r"\bin mid-(?:sentence|stream)\b": "say during the stream",
    r"\bat hand\b": "say available",
    r"\bbears? witness\b": "say proves",
    r"\bhears? of\b": "say is told, or receives",
    r"\bwants? (?:a|an) key\b": "say needs",
    r"\btells (?:of|where|what|which)\b": "say shows or prints",
    r"\bmakes up for\b": "say corrects",
    r"\blooked at anew\b": "say checked again",
}
"""Phrases, and what to do instead."""

OLD_NAMES = {
    r"\blegs?\b": "say attempt",
    r"\bthe seam\b": "say splice",
    r"\bshel(?:f|ves)\b": "say rows",
    r"\b(?:seam|world|leg|book|turn|exchange|refusals?|openai_api|anthropic_api)\.py\b": "the file has another name",
}
"""Names that classes and files had before 2026-11-26."""


def prose_of_code(text: str) -> str:
    """The strings and comments of a Python file, on the lines where they are; a string of one word is no prose."""
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    lines = [""] * (text.count("\n") + 2)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds and not re.fullmatch(r"\W*\w+\W*", token.string):
            for number, line in enumerate(token.string.split("\n"), token.start[0] - 1):
                lines[number] += line + " "
    return "\n".join(lines)


def refused_in(text: str, phrases: dict[str, str] = REFUSED) -> list[str]:
    """The phrases of a text that are refused, each with its line and what to do instead."""
    prose = re.sub(r"(?ms)^```.*?^```|`[^`\n]*`", lambda m: "\n" * m[0].count("\n"), text)
    return [
        f"line {prose.count(chr(10), 0, match.start()) + 1}: {match[0]!r}: {advice}"
        for pattern, advice in phrases.items()
        for match in re.finditer(pattern, prose, re.IGNORECASE)
    ]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _refused_in_file(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return refused_in(prose_of_code(text), REFUSED | OLD_NAMES) if path.suffix == ".py" else refused_in(text)


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_a_document_is_written_plainly(path: Path) -> None:
    assert _refused_in_file(path) == []


def test_code_is_written_plainly() -> None:
    found = {_name(path): _refused_in_file(path) for path in CODE}
    assert {name: phrases for name, phrases in found.items() if phrases} == {}


def test_tests_use_the_names_that_the_code_has() -> None:
    found = {_name(path): refused_in(prose_of_code(path.read_text("utf-8")), OLD_NAMES) for path in TESTS}
    del found[_name(Path(__file__))]
    assert {name: phrases for name, phrases in found.items() if phrases} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The key is none of ours.", 1),
        ("Whoever can write it wins.\nNobody sees it.", 2),
        ("`User=nobody` runs it.", 0),
        ("```ini\nUser=nobody\n```", 0),
        ("A key that other users can read is refused.", 0),
        ("It keeps count, lest a file be lost.", 1),
    ],
)
def test_phrases_are_found_in_prose_and_not_in_code(text: str, found: int) -> None:
    assert len(refused_in(text)) == found


def test_the_prose_of_code_is_its_strings_and_comments() -> None:
    code = 'nobody = 1  # whoever reads\n"""First.\n\nIt is none."""\nprint(f"lest {2} know", "whoever")\n'
    assert [line.split(": ")[1] for line in refused_in(prose_of_code(code))] == ["'is none'", "'whoever'", "'lest'"]
