"""`batuta pacha store`: models kept once, read-only, under the address of their content."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batuta_cli.cli import console
from batuta_cli.cli.command import Command, command_group, examples
from batuta_cli.cli.many import Done, for_each
from batuta_cli.cli.models import FollowSymlinks, shell_path, warn_of_pointers
from batuta_cli.errors import BatutaError, DamagedStateError, UsageError, VerificationError
from batuta_cli.files import display

if TYPE_CHECKING:
    from batuta_cli.pacha.store import Added, Report, Store, StoreName

app = command_group("store", "Keep models once, read-only, under the address of their content.")

One = Annotated[str, typer.Argument(metavar="NAME|ADDRESS", help="NAME[:TAG], or blake3:HEX.")]


@app.command(
    cls=Command,
    epilog=examples(
        "batuta pacha store add model.gguf --name llama:8b",
        "batuta pacha store add ./*.gguf",
        "curl -s https://example.com/model.gguf | batuta pacha store add - --name llama",
        "batuta pacha store add llama:8b --name production",
    ),
)
def add(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Files and directories; - is stdin; an object of the store to name it again."
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME[:TAG]", help="What to call it; TAG is latest by default.")
    ] = None,
    link: Annotated[
        bool,
        typer.Option(
            "--link",
            help="Make the file itself the object, by a hard link: no second copy, but the file turns read-only,"
            " and editing it in place damages the object.",
        ),
    ] = False,
    follow_symlinks: FollowSymlinks = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Move the name from another object; replace another signature.")
    ] = False,
) -> console.CommandResult:
    """Add files and directories, each with its PATH.sig, and print their addresses.

    The object shares blocks with the file where the file system can (btrfs, XFS); else the file is copied. The next
    `gc` deletes objects without a name.
    """
    from batuta_cli.pacha.store import StoreName

    if name is not None and len(paths) > 1:
        raise UsageError("--name takes one PATH", hint="add them one by one")
    wanted = None if name is None else StoreName.parse(name)
    several = len(paths) > 1
    outcome = for_each(
        paths, lambda path: _add(path, wanted, link=link, force=force, follow=follow_symlinks, several=several)
    )
    if wanted is None and any(row["ok"] and not row["names"] for row in outcome.result):
        console.note("without a name it is deleted by the next `batuta pacha store gc`; --name NAME gives it one")
    return outcome


def _add(path: str, name: "StoreName | None", *, link: bool, force: bool, follow: bool, several: bool) -> Done:
    from batuta_cli.pacha.locate import locate
    from batuta_cli.pacha.store import Store, add, add_directory, add_stored, add_stream

    store = Store.default()
    found = None if path == "-" else locate(path)
    if found is not None and found.address is None:
        warn_of_pointers(path, found.path, follow_symlinks=follow)
    if link and (found is None or found.address is not None or os.path.isdir(path)):
        raise UsageError(f"{display(path)}: only a file can be linked", hint="leave --link out")
    if found is None:
        added = add_stream(store, 0, "stdin", name=name, force=force, progress=console.progress)
    elif found.address is not None:
        added = add_stored(store, found.address, name=name, force=force, progress=console.progress)
    elif os.path.isdir(path):
        added = add_directory(store, path, name=name, force=force, follow_symlinks=follow, progress=console.progress)
    else:
        added = add(store, path, name=name, force=force, link=link, progress=console.progress)
    if added.replaced:
        console.warn(f"the existing object was damaged; it was moved to {display(added.replaced)}")
    if added.sharing == "link":
        console.note(f"{display(path)} is now the object itself and read-only; an edit in place would damage it")
    return Done(_added(added, store), _line(added, path, several=several))


def _added(added: "Added", store: Any) -> dict[str, Any]:
    names = sorted(str(name) for name, entry in store.names().items() if entry.address == added.address)
    return {
        "address": str(added.address),
        "name": None if added.name is None else str(added.name),
        "names": names,
        "size": added.size,
        "object": added.object_path,
        "sharing": added.sharing,
        "signature": added.has_signature,
        "set_aside": added.replaced,
    }


def _line(added: "Added", path: str, *, several: bool) -> str:
    if added.name is not None:
        return f"{added.address}  {added.name}"
    return f"{added.address}  {display(path)}" if several else str(added.address)


@app.command(
    cls=Command, epilog=examples("batuta pacha store path llama:8b", 'llama-cli -m "$(batuta pacha store path llama)"')
)
def path(reference: One) -> console.CommandResult:
    """Print the path of an object.

    Only its type, size and mode are checked; `batuta pacha verify NAME` and `store verify` hash it.
    """
    from batuta_cli.pacha.store import Store, parse_reference

    address, found, entry = Store.default().lookup(parse_reference(reference))
    result = {"path": found, "address": str(address), "file": entry.file if entry else None}
    return console.CommandResult(result, display(found))


@app.command(
    cls=Command,
    epilog=examples("batuta pacha store get llama:8b ./model.gguf", "batuta pacha store get tiny ./tiny"),
)
def get(
    reference: One,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="A path where nothing is yet.")],
) -> console.CommandResult:
    """Copy a file or directory out of the store, with its signature as DEST.sig; every byte is hashed on its way."""
    from batuta_cli.pacha.store import Store, parse_reference, retrieve

    if destination == "-":
        raise UsageError(
            "a model of the store is not written to stdout, because it is verified as a whole first",
            hint=f"name a file, or read the object itself: batuta pacha store path {shell_path(reference)}",
        )
    got = retrieve(Store.default(), parse_reference(reference), destination, progress=console.progress)
    result = {
        "path": got.path,
        "address": str(got.address),
        "kind": got.kind,
        "files": got.files,
        "size": got.size,
        "signature": got.signature,
    }
    what = f"{got.files:,} file{'' if got.files == 1 else 's'}, {got.size:,} bytes"
    signed = f", signature in {display(got.signature)}" if got.signature else ""
    return console.CommandResult(result, f"{display(destination)}: {what}{signed}")


@app.command(
    "list", cls=Command, epilog=examples("batuta pacha store list", "batuta pacha store list --json | jq .result")
)
def list_objects() -> console.CommandResult:
    """List the objects: names, addresses, sizes in bytes, when they were added (a linked file: last changed).

    A directory is shown as NAME:TAG/ with the size of its files; its objects are listed by --json only.
    """
    from batuta_cli.pacha.store import Store

    store = Store.default()
    names = sorted(store.names().items(), key=lambda item: item[0])
    directories = [(name, entry) for name, entry in names if entry.directory]
    objects = store.objects()
    within = {member for _, entry in directories for member in _members(store, entry.address)}
    present = {found.address for found in objects}
    present |= {e.address for _, e in directories if os.path.lexists(store.manifest_path(e.address))}
    missing = [(name, entry) for name, entry in names if entry.address not in present]
    result = {
        "objects": [
            {
                "names": [str(name) for name in found.names],
                "address": str(found.address),
                "size": found.size,
                "added": f"{found.added:%Y-%m-%dT%H:%M:%SZ}",
                "path": found.path,
                "signature": found.has_signature,
                "in_a_directory": found.address in within,
            }
            for found in objects
        ],
        "directories": [
            {"name": str(name), "address": str(entry.address), "size": entry.size} for name, entry in directories
        ],
        "missing": [{"name": str(name), "address": str(entry.address)} for name, entry in missing],
    }
    rows = [
        (str(name), str(found.address), f"{found.size:,}", f"{found.added:%Y-%m-%d %H:%M}Z")
        for found in objects
        for name in (found.names or (() if found.address in within else ("-",)))
    ]
    rows += [(f"{name}/", str(e.address), f"{e.size:,}", "-") for name, e in directories if (name, e) not in missing]
    rows += [(str(name), str(entry.address), "missing", "-") for name, entry in missing]
    if not rows:
        console.note("the store is empty; batuta pacha store add PATH --name NAME")
    rows.sort(key=lambda row: (row[0] == "-", row))
    return console.CommandResult(result, console.Table(("NAME", "ADDRESS", "BYTES", "ADDED"), rows))


def _members(store: "Store", address: Any) -> tuple[Any, ...]:
    """The objects of a directory; none when its manifest is damaged, which `store verify` reports."""
    from batuta_cli.pacha.store.directories import members

    try:
        return members(store, address)
    except DamagedStateError:
        return ()


@app.command(cls=Command, epilog=examples("batuta pacha store verify", "batuta pacha store verify llama:8b"))
def verify(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="NAME|ADDRESS...", help="Which objects; all of them by default.")
    ] = None,
) -> console.CommandResult:
    """Hash objects again. A damaged one is moved aside and no longer served: exit 3."""
    from batuta_cli.pacha.store import Store, parse_reference, verify

    store = Store.default()
    wanted = [parse_reference(text) for text in references] if references else None
    names = _names_by_address(store)

    def known(count: int, one: "Report") -> None:
        if count > 1:  # a single result is printed at the end
            for address in one.intact:
                console.emit(f"{names.get(address, address)}: intact")
            for line in _faults(one):
                console.report(VerificationError(line) if one.damaged else DamagedStateError(line))

    report = verify(store, wanted, progress=console.progress, known=known)
    for file in report.foreign:
        console.warn(f"{display(file)}: does not belong to the store")
    for address in report.made_read_only:
        console.warn(f"{address}: was intact but writable; it is read-only again")
    return _reported(report)


def _names_by_address(store: "Store") -> dict[Any, str]:
    found: dict[Any, list[str]] = {}
    for name, entry in sorted(store.names().items(), key=lambda item: item[0]):
        found.setdefault(entry.address, []).append(str(name))
    return {address: ", ".join(names) for address, names in found.items()}


def _faults(report: "Report") -> list[str]:
    """What is wrong with the store, one line an object."""
    lines = [
        f"{', '.join(map(str, d.names)) or d.address}: {d.reason}, set aside in {display(d.set_aside)}"
        for d in report.damaged
    ]
    lines += [f"{name or address}: the object {address} is missing" for name, address in report.missing]
    return lines + [f"{address}: {error.message}" for address, error in report.unreadable]


def _reported(report: "Report") -> console.CommandResult:
    result = {
        "intact": [str(address) for address in report.intact],
        "damaged": [
            {
                "address": str(d.address),
                "reason": d.reason,
                "set_aside": d.set_aside,
                "names": [str(name) for name in d.names],
            }
            for d in report.damaged
        ],
        "missing": [{"name": str(name) if name else None, "address": str(a)} for name, a in report.missing],
        "unreadable": [{"address": str(a), "error": console.describe(error)} for a, error in report.unreadable],
        "made_read_only": [str(address) for address in report.made_read_only],
        "foreign": list(report.foreign),
    }
    lines = _faults(report)
    error: BatutaError | None = None
    if lines:
        kind = VerificationError if report.damaged else DamagedStateError
        hint = "add the file it came from again" if report.damaged or report.missing else None
        faulty = len(report.damaged) + len({address for _, address in report.missing}) + len(report.unreadable)
        checked = len(report.intact) + faulty
        summary = f"{faulty} of {checked} objects are not intact"
        shown = checked > 1 and not console.settings.json  # each fault was printed when it was found
        error = kind(summary if shown else "\n  ".join(("not all objects are intact:", *lines)), hint=hint)
    count = len(report.intact)
    return console.CommandResult(result, f"{count:,} {'object is' if count == 1 else 'objects are'} intact", error)


@app.command(
    cls=Command, epilog=examples("batuta pacha store remove llama:8b", "batuta pacha store remove --force blake3:…")
)
def remove(
    references: Annotated[list[str], typer.Argument(metavar="NAME|ADDRESS...", help="NAME[:TAG], or blake3:HEX.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Remove an object together with its names.")] = False,
) -> console.CommandResult:
    """Remove a name (the object stays until `gc`), or an object without a name."""
    from batuta_cli.pacha.store import Store, StoreName, parse_reference

    def one(text: str) -> Done:
        reference = parse_reference(text)
        names = Store.default().remove(reference, force=force)
        is_name = isinstance(reference, StoreName)
        result = {"names": [str(name) for name in names], "address": None if is_name else str(reference)}
        gone = ", ".join(map(str, names if is_name else (reference, *names)))
        return Done(result, f"removed {gone}")

    return for_each(references, one)


@app.command(
    cls=Command,
    epilog=examples("batuta pacha store gc --dry-run", "batuta pacha store gc", "batuta pacha store gc --damaged"),
)
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only print what would be deleted.")] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="Delete also the damaged objects set aside.")] = False,
) -> console.CommandResult:
    """Delete objects that no name needs, their signatures, and leftovers of interrupted `store add`s."""
    from batuta_cli.pacha.store import Store, collect

    store = Store.default()
    done = collect(store, dry_run=dry_run, damaged=damaged)
    result = {
        "dry_run": dry_run,
        "objects": [{"address": str(address), "size": size} for address, size in done.objects],
        "signatures": done.signatures,
        "temporaries": done.temporaries,
        "freed": done.freed,
        "set_aside": done.set_aside,
        "cleared": done.cleared,
        "directories": [str(address) for address in done.directories],
    }
    if done.set_aside:
        where = display(store.root / "damaged")
        console.note(f"{done.set_aside:,} bytes of damaged objects are kept in {where}; gc --damaged deletes them")
    verb = "would delete" if dry_run else "deleted"
    lines = [f"{verb} the directory {address}" for address in done.directories]
    lines += [f"{verb} {address}, {size:,} bytes" for address, size in done.objects]
    if done.cleared:
        lines.append(f"{verb} {done.cleared:,} bytes of damaged objects")
    count = len(done.objects)
    summary = f"{verb} {count:,} object{'' if count == 1 else 's'}, {done.freed:,} bytes"
    return console.CommandResult(result, "\n".join((*lines, summary)))
