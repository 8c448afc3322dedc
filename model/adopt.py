"""Make a fleet this copy's own: what CI trains on, merges and serves.

--source adopts the files of a folder, once python -m model.data_check is content with them; further flags are those of
that command. Files outside the repository are copied into data/, or pinned at --place, where they were uploaded to.
--profile adopts the simulator again. --undo brings back what git has. Writes model/params.yaml, model/data.lock.json
and model/simulated.yaml, all of them or none.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from closedloop.data import sources
from closedloop.data.frames import Frames
from closedloop.data.schema import Tables
from model.common import adopting, cli, data_pin, params, pin_making, pinned_files, proposed_params, starting_params
from model.common.provenance import PIN, ROOT

SIMULATED_FLEET = {"machines": 100, "days": 365, "seed": 7}  # of the template
CHECKED = "fits: "  # how data_check's last line begins, which names the next step


def check(source: Path, words: list[str], params_file: Path | None) -> Path:
    """Run ``model.data_check``, print what it says, and return the parameter file that fits.

    Raises:
        SystemExit: it refused the data, or was called in a wrong way; with its exit code.
    """
    out = adopting.WORK / "data-check"
    flags = ["--params", str(params_file)] if params_file else ["--out", str(out)]
    command = [sys.executable, "-m", "model.data_check", "--source", str(source), *flags, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print("\n".join(line for line in done.stdout.splitlines() if not line.startswith(CHECKED)))
    if done.returncode:
        if done.returncode == cli.REFUSED:
            print("\nnot adopted: nothing was changed")
        raise SystemExit(done.returncode)
    return params_file or out / "params.yaml"


def adopted_text(text: str) -> str:
    """Return the text of a proposal under the first lines of this copy's own parameter file."""
    first, _, _ = starting_params.path().read_text(encoding="utf-8").partition("\n\n")
    own = "\n".join(line for line in first.splitlines() if line.startswith("#"))
    kept = re.sub(r"\A# Proposed by .*\n# Every key .*\n", lambda _: f"{own}\n", text)
    return kept.replace(
        f"those of model/{params.PARAMS.name} times", f"those of model/{starting_params.SIMULATED.name} times"
    )


def adopt_files(source: Path, path: Path, place: str | None, changes: adopting.Changes) -> dict[str, Any]:
    """Write the files of an adopted folder; return its part of the pin.

    Raises:
        DataError: the files are too large for git, or cannot be read where they lie then.
        RefusedError: ``place`` holds other tables than the folder.
    """
    text = adopted_text(path.read_text(encoding="utf-8"))
    asked = params.load(path)
    if place is None:
        part = local_part(source, asked, changes)
        pin, _ = pin_of(part, asked)
    else:
        part = pin_making.part_of(place, asked)
        pin, fingerprint = pin_of(part, asked)
        here = sources.read_frames(source, asked.columns, asked.files, asked.schema.machine_id, asked.read)
        if fingerprint != tables_of(here, asked).fingerprint(asked.schema.sensors):
            raise cli.RefusedError(
                f"{place} holds other tables than {source}; upload the folder as it is, and run again"
            )
    if is_simulated(data_pin.load()["parts"]):
        changes.write(starting_params.SIMULATED, params.PARAMS.read_bytes())
    changes.write(params.PARAMS, text.encode())
    changes.write(PIN, pin)
    return part


def local_part(source: Path, asked: params.Params, changes: adopting.Changes) -> dict[str, Any]:
    """Return the part of a folder's or file's copy in the repository, which is made if need be."""
    base = source if source.is_dir() else source.parent
    found = [source] if source.is_file() else pinned_files.of_fleet(base, asked.files)
    names = [path.relative_to(base).as_posix() for path in found]
    adopting.refuse_large(base, names)
    home = adopting.home(source, asked.source)
    if home != base.resolve():
        changes.copy(base, home, names)
    files = [pinned_files.entry(home, name) for name in names]
    return {"kind": "files", "location": pinned_files.location_of(home), "files": files}


def adopt_simulator(profile: str, changes: adopting.Changes) -> dict[str, Any]:
    """Write the files of the simulated fleet; return its part of the pin."""
    before = starting_params.load()
    source = before.source.removesuffix("-azure") + ("" if profile == "default" else f"-{profile}")
    schema, hours = before.schema.to_dict(), before.features["history_hours"]
    path = adopting.WORK / "params.yaml"
    asked = proposed_params.write(proposed_params.Fleet(source, schema, before.split, hours), path)
    pinned = [part for part in data_pin.load()["parts"] if part.get("kind") == "simulator"]
    part = (pinned[0] if pinned else {"kind": "simulator"} | SIMULATED_FLEET) | {"profile": profile}
    pin, _ = pin_of(part, asked)
    changes.write(params.PARAMS, adopted_text(path.read_text(encoding="utf-8")).encode())
    changes.write(PIN, pin)
    changes.write(starting_params.SIMULATED, None)
    return part


def pin_of(part: dict[str, Any], asked: params.Params) -> tuple[bytes, str]:
    """Return the content of the pin of one part, and the fingerprint of the tables that a run will read from it."""
    frames, _ = data_pin.fetch([part], asked)
    tables = tables_of(frames, asked)
    fingerprint = tables.fingerprint(asked.schema.sensors)
    path = adopting.WORK / PIN.name
    data_pin.write([part], fingerprint, data_pin.held(tables), path)
    return path.read_bytes(), fingerprint


def tables_of(frames: Frames, asked: params.Params) -> Tables:
    """Return the tables of frames, as ``model.validate`` makes them."""
    return sources.frames_to_tables(frames, asked.schema, {})


def is_simulated(parts: list[dict[str, Any]]) -> bool:
    """Return whether a pin holds simulated machines alone."""
    return all(part.get("kind") == "simulator" for part in parts)


def say_next(part: dict[str, Any], edited: dict[Path, Path]) -> None:
    """Print which files are the fleet's now, and what to do with them."""
    asked = params.load()
    lines = {
        "model/params.yaml": "features, costs, gate and estimators as before, in lengths of time that suit the fleet",
        "model/data.lock.json": described(part),
        "model/simulated.yaml": "the parameters before; for the next fleet, lengths of time start from them again",
    }
    if not starting_params.SIMULATED.exists():
        lines["model/simulated.yaml"] = "gone, since model/params.yaml is the simulator's again"
    if part["kind"] == "files" and "://" not in part["location"]:
        lines[part["location"]] = "the fleet's files; whoever can read the repository can read them"
    changed = {name: said for name, said in lines.items() if adopting.uncommitted(ROOT / name)}
    print(f"\nadopted: {asked.source} is the fleet of this copy")
    if not changed:
        print("every file is as committed; next: make run")
        return
    wide = max(map(len, changed))
    print("\n".join(f"  {name:{wide}}  {said}" for name, said in changed.items()))
    for path, old in sorted(edited.items()):
        print(f"{path.relative_to(ROOT)} had changes that were not committed; as it was, it is {old}")
    print(f'commit them together:\n  git add {" ".join(changed)}\n  git commit -m "Adopt the fleet {asked.source}"')
    print("next: make run, then push (make pr); to take it back before the commit: make unadopt")


def described(part: dict[str, Any]) -> str:
    """Return what a part of the pin holds, in a few words."""
    if part["kind"] == "simulator":
        return "{machines} machines for {days} days, profile {profile}, seed {seed}".format(**part)
    if part["kind"] != "files":
        return f"{part['kind']} at {part['location']}"
    files = part["files"]
    size = sum(file["size"] for file in files) / 1e6
    return f"{len(files)} file{'s' * (len(files) != 1)} of {part['location']}, {size:.1f} MB"


def undo() -> int:
    """Bring back the files that git has; return the exit code."""
    parts = data_pin.load()["parts"]
    folder = next((ROOT / part["location"] for part in parts if part.get("kind") == "files"), None)
    copies = folder if folder is not None and folder.is_relative_to(ROOT / adopting.FOLDER) else None
    files = [params.PARAMS, PIN, starting_params.SIMULATED]
    done, stay = adopting.take_back(files, copies)
    print("\n".join(done) or "nothing to take back: every file is as committed; a commit is taken back with git revert")
    if done and (earlier := adopting.earlier(files)):
        print("adoptions had replaced what was not committed either:", *earlier, sep="\n  ")
    if stay:
        print("\n".join(stay))
    return cli.DONE


def main(words: list[str]) -> int:
    """Write model/params.yaml, model/data.lock.json, model/simulated.yaml and data/, all of them or none."""
    flags = cli.parser(__doc__)
    choice = flags.add_mutually_exclusive_group(required=True)
    choice.add_argument("--source", type=Path, metavar="PATH", help="folder of the files to adopt")
    choice.add_argument("--profile", choices=("azure", "default"), help="adopt the simulator with this profile")
    choice.add_argument("--undo", action="store_true", help="bring back what git has")
    flags.add_argument("--place", metavar="PLACE", help="with --source: pin this copy of the folder (az://, s3://, …)")
    args, more = flags.parse_known_args(words)
    if (more or args.place) and args.source is None:
        flags.error(f"{' '.join(more or ['--place'])}: goes with --source")
    if args.undo:
        return undo()
    own = args.params.resolve() == params.PARAMS.resolve()
    checked = check(args.source, more, None if own else args.params) if args.source else None
    edited = {path for path in (params.PARAMS, PIN) if adopting.uncommitted(path)}
    with adopting.all_or_none() as changes:
        part = (
            adopt_files(args.source, checked, args.place, changes)
            if checked
            else adopt_simulator(args.profile, changes)
        )
    say_next(part, {path: old for path, old in changes.replaced.items() if path in edited})
    return cli.DONE


if __name__ == "__main__":
    cli.main(main)
