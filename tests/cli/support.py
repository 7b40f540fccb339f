"""What the tests of the pacha commands share: keys and signatures made without a process, terminals, JSON answers."""

import datetime as dt
import errno
import fcntl
import json
import os
import pty
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batuta_cli.pacha import statement, trust
from batuta_cli.pacha.envelope import Envelope, EnvelopeSignature, pre_authentication_encoding
from batuta_cli.pacha.hashing import hash_model
from batuta_cli.pacha.keyring import file_stem, save_pair
from batuta_cli.pacha.keys import SigningKey
from batuta_cli.pacha.signing import sign_path
from batuta_cli.pacha.trust import Revocation, TrustedKey
from tests.conftest import BATUTA

Done = subprocess.CompletedProcess[str]


def trust_file(home: Path) -> Path:
    return home / "data" / "batuta" / "trust" / "trust.toml"


def forget_trust(home: Path) -> None:
    """Begin with an empty trust store, as the error about a missing one says."""
    trust_file(home).unlink(missing_ok=True)
    trust_file(home).with_name("trust.toml.written").unlink(missing_ok=True)


def keys_dir(home: Path) -> Path:
    return home / "data" / "batuta" / "keys"


def trust_key(home: Path, key: SigningKey, name: str, **limits: dt.datetime | None) -> None:
    entry = TrustedKey(name, key.verifying_key, trust.now(), **limits)
    trust.update(lambda store: store.with_key(entry), trust_file(home))


def revoke_key(home: Path, key: SigningKey, reason: str = "") -> None:
    revocation = Revocation(key.verifying_key, trust.now(), reason)
    trust.update(lambda store: store.with_revocation(revocation), trust_file(home))


def own_key(home: Path, identity: str = "alice@example.com", *, trusted: bool = True) -> SigningKey:
    """A key pair of the user's own, as `keygen` makes it, without the cost of a process."""
    key = SigningKey.generate(identity)
    keys_dir(home).mkdir(mode=0o700, parents=True, exist_ok=True)
    save_pair(key, keys_dir(home) / f"{file_stem(identity)}.key")
    if trusted:
        trust_key(home, key, identity)
    return key


def signed_model(work: Path, key: SigningKey, name: str = "model", content: bytes = b"weights") -> Path:
    """A small model with its signature beside it."""
    model = work / name
    model.write_bytes(content)
    sign_path(model, key).save(work / f"{name}.sig")
    return model


def bundle(
    model: Path,
    *keys: SigningKey,
    identity: str | None = None,
    created: dt.datetime | None = None,
    expires: dt.datetime | None = None,
    keyids: Sequence[str] | None = None,
    name: str | None = None,
    ignore_paths: Sequence[str] = (),
) -> bytes:
    """A `.sig` as its first key could have made it at another time, in another name, together with other keys."""
    first = keys[0].verifying_key
    payload = statement.build(
        name or model.name,
        hash_model(model),
        identity=identity,
        public_key=first,
        created=created or trust.now(),
        expires=expires,
        ignore_paths=ignore_paths,
    ).to_payload()
    message = pre_authentication_encoding(payload)
    ids = keyids or [key.verifying_key.key_id for key in keys]
    signatures = tuple(EnvelopeSignature(i, key.sign(message)) for i, key in zip(ids, keys, strict=True))
    return Envelope(payload, signatures, first.hint).to_json()


def resigned(payload: bytes, key: SigningKey) -> bytes:
    """A `.sig` over any payload, whatever it says."""
    public = key.verifying_key
    value = key.sign(pre_authentication_encoding(payload))
    return Envelope(payload, (EnvelopeSignature(public.key_id, value),), public.hint).to_json()


def answer(done: Done) -> dict[str, Any]:
    """The one JSON document of `--json`, its shape checked."""
    document: dict[str, Any] = json.loads(done.stdout)
    assert list(document) == ["ok", "command", "result", "error"]
    assert document["ok"] is (document["error"] is None) is (done.returncode == 0)
    if document["error"]:
        assert set(document["error"]) == {"kind", "message", "hint", "exit_code"}
        assert document["error"]["exit_code"] == done.returncode
    return document


def result(done: Done) -> Any:
    """What `--json` says was found."""
    return answer(done)["result"]


def shows_no(secret: str, *runs: Done) -> None:
    """Neither a secret nor a traceback is in any output."""
    for done in runs:
        for shown in (done.stdout, done.stderr):
            assert secret not in shown
            assert "Traceback" not in shown


def names_in(directory: Path) -> list[str]:
    """What is in a directory, hidden files included."""
    return sorted(path.name for path in directory.iterdir())


def in_a_shell(line: str, env: dict[str, str], cwd: Path) -> None:
    """Type a line that a message offered."""
    path = {"PATH": f"{Path(BATUTA).parent}:{env['PATH']}"}
    done = subprocess.run(["bash", "-c", line], env=env | path, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def hints(done: Done) -> list[str]:
    """The commands that a failure offers, one a line."""
    lines = done.stderr.partition("hint: ")[2].splitlines()
    return [line.strip() for line in lines]


def on_a_terminal(
    arguments: Sequence[str | Path],
    env: dict[str, str],
    cwd: Path,
    answers: Sequence[tuple[str, str]] = (),
    *,
    program: str = BATUTA,
) -> tuple[int, str]:
    """Run `batuta` on a terminal of its own; each answer is typed when its question has appeared.

    Returns the exit status and what the terminal showed.
    """
    leader, follower = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with subprocess.Popen(
        [program, *map(str, arguments)],
        env=env,
        cwd=cwd,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - the tests have no threads
    ) as child:
        os.close(follower)
        shown, waiting, seen = b"", list(answers), 0
        while True:
            if waiting and waiting[0][0].encode() in shown[seen:]:
                seen = len(shown)
                os.write(leader, waiting.pop(0)[1].encode(errors="surrogateescape") + b"\n")
            try:
                piece = os.read(leader, 65536)
            except OSError as error:
                assert error.errno == errno.EIO  # the other side is closed
                break
            if not piece:
                break
            shown += piece
    os.close(leader)
    assert not waiting, f"was never asked: {waiting}\n{shown!r}"
    return child.returncode, shown.decode(errors="backslashreplace").replace("\r\n", "\n")
