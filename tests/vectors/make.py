"""Makes the test vectors of this folder: `python -m tests.vectors.make` from the root of the repository.

It writes cases that do not exist yet and never changes one that does, so the files of every version stay pinned. The
files are made by tests/pacha/forge.py, oms/forge.py and encryption/reference.py, which follow docs/formats.md and do
not use the code under test; expected results are written here by hand.
"""

import hashlib
import json

from tests.vectors.case import AT, DATA, HERE, INDEX, SUMS, Case
from tests.vectors.directory_cases import directories
from tests.vectors.encryption_cases import pachaenc1, pachaenc2
from tests.vectors.oms_cases import bundles
from tests.vectors.signature_cases import signatures


def cases() -> list[Case]:
    """All vectors. Keys of ECDSA are new in each run, so only the cases that do not exist yet are written."""
    return [*signatures(), *bundles(), *pachaenc1(), *pachaenc2(), *directories()]


def main() -> None:
    """Write what is missing, the index and the checksums."""
    rows = []
    for case in cases():
        rows.append(case.row())
        if case.directory.exists():
            continue
        for name, data in case.files.items():
            path = case.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    INDEX.write_text(json.dumps({"at": AT, "vectors": rows}, indent=1, ensure_ascii=True) + "\n")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(HERE)}\n"
        for path in sorted(DATA.rglob("*"))
        if path.is_file()
    ]
    SUMS.write_text("".join(lines))


if __name__ == "__main__":
    main()
