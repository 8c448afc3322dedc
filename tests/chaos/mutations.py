"""Break the most critical lines one at a time, and run the tests that must notice.

``python tests/chaos/mutations.py [WORD …]`` takes those whose description has one of the words; all without any. Each
is made in a copy below ``build/mutations/``, and the tests see the copy. Exit code 1: a mutation was noticed by nobody,
or its tests are red without it. ``tests/repo/test_faults.py`` holds the list to today's code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "build" / "mutations"
_COPIED = ("src", "model", "score", "tests", ".ci", "pyproject.toml")


class Mutation(NamedTuple):
    """``old`` occurs once in ``file``, becomes ``new``, and one of the tests must turn red."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "a record is acknowledged without its sync",
        "src/closedloop/log/segment.py",
        "            sync_records(self._descriptor)\n",
        "            pass\n",
        ("tests/log/test_spool.py::test_many_appends_share_one_sync",),
    ),
    Mutation(
        "a record is acknowledged before it is written",
        "src/closedloop/log/spool.py",
        "        try:\n            size = self._segment.append(",
        "        self._answer(batch, None)\n        try:\n            size = self._segment.append(",
        ("tests/log/test_spool.py::test_a_failed_sync_is_never_tried_again_on_its_descriptor",),
    ),
    Mutation(
        "a segment is sealed without a sync",
        "src/closedloop/log/segment.py",
        "            sync_file(self._descriptor)\n            self.path.rename(self.path.with_suffix(SEALED))",
        "            self.path.rename(self.path.with_suffix(SEALED))",
        ("tests/chaos/test_power.py::test_under_durability_os_a_sealed_segment_is_after_a_cut_what_the_shipper_read",),
    ),
    Mutation(
        "a segment goes without a sync of the sink",
        "src/closedloop/log/ship.py",
        "                self._make_durable()\n                return\n",
        "                return\n",
        ("tests/log/test_ship.py::test_a_segment_goes_only_after_a_sync_that_comes_after_its_commit",),
    ),
    Mutation(
        "a segment goes after the write, and no table was loaded again",
        "src/closedloop/log/ship.py",
        "                self._write(opened, table, segment)\n",
        "                self._write(opened, table, segment)\n                return self._make_durable()\n",
        ("tests/log/test_ship.py::test_a_segment_goes_only_when_a_table_that_was_loaded_again_holds_it",),
    ),
    Mutation(
        "the table is not loaded again before a write",
        "src/closedloop/log/ship.py",
        "            known.update_incremental()\n",
        "",
        ("tests/log/test_versions.py::test_a_shipper_that_runs_while_another_release_widens_the_table_goes_on",),
    ),
    Mutation(
        "the transaction of the table is off by one",
        "src/closedloop/log/shipped.py",
        "    if version is None or version < number:\n",
        "    if version is None or version <= number:\n",
        ("tests/log/test_ship.py::test_a_segment_that_was_shipped_already_is_not_shipped_again",),
    ),
    Mutation(
        "another segment under the same number counts as shipped",
        "src/closedloop/log/shipped.py",
        "    if found != sha256:\n",
        "    if False:\n",
        ("tests/log/test_ship.py::test_a_copy_of_the_volume_that_went_on_by_itself_is_found_and_its_segment_kept",),
    ),
    Mutation(
        "the transaction of a commit is not checked",
        "src/closedloop/log/commits.py",
        "        if self.transactions != {segment.spool: segment.number}:\n",
        "        if False:\n",
        (
            "tests/log/test_repair.py::test_a_commit_cut_after_a_whole_line_comes_again_once",
            "tests/log/test_repair.py::test_a_commit_with_the_transaction_of_another_segment_is_not_whole",
        ),
    ),
    Mutation(
        "repair starts after the last checkpoint, and not after the one before it",
        "src/closedloop/log/commits.py",
        "    since = whole[-2] if len(whole) > 1 else -1\n",
        "    since = whole[-1] if whole else -1\n",
        ("tests/log/test_repair.py::test_repair_looks_at_what_follows_the_last_checkpoint_but_one",),
    ),
    Mutation(
        "repair undoes what another spool shipped",
        "src/closedloop/log/repair.py",
        "            if not spools.hold(segment):\n",
        "            if False:\n",
        ("tests/log/test_repair.py::test_a_shipper_never_undoes_what_another_spool_shipped",),
    ),
    Mutation(
        "no flock on a spool's folder",
        "src/closedloop/log/state.py",
        "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        pass\n",
        ("tests/log/test_spool.py::test_a_second_writer_is_refused",),
    ),
    Mutation(
        "no flock around repair",
        "src/closedloop/log/repair.py",
        "        fcntl.flock(descriptor, fcntl.LOCK_EX)\n",
        "",
        ("tests/log/test_repair.py::test_a_second_repair_waits_for_the_first_and_finds_a_whole_table",),
    ),
    Mutation(
        "the scope of a token is not checked",
        "score/auth.py",
        "        if scope not in scopes:\n",
        "        if False:\n",
        ("tests/score/test_auth.py::test_a_known_token_has_a_name_and_its_scopes",),
    ),
    Mutation(
        "the sink does not count towards the limit",
        "src/closedloop/log/budget.py",
        ".sink_bytes or 0\n",
        ".sink_bytes and 0 or 0\n",
        (
            "tests/log/test_budget.py::"
            "test_the_shipper_says_what_the_sink_takes_and_the_service_refuses_until_there_is_room",
        ),
    ),
    Mutation(
        "what can never be logged is scored",
        "score/log/journal.py",
        "        if longest + _RECORD_BYTES > self.spool.largest:\n",
        "        if False:\n",
        ("tests/score/test_cost.py::test_what_could_never_be_logged_is_refused_before_the_work",),
    ),
    Mutation(
        "orders of erasure are read once for a segment",
        "src/closedloop/log/ship.py",
        "(standing := orders.find(self._sink)).orders",
        "(standing := segment.orders).orders",
        ("tests/log/test_erase.py::test_an_order_given_while_a_segment_is_being_shipped_is_obeyed",),
    ),
    Mutation(
        "upkeep commits in spite of a halt",
        "src/closedloop/log/rewrite.py",
        "        refuse(sink)\n        lease.renew()\n",
        "        lease.renew()\n",
        ("tests/log/test_upkeep.py::test_a_halt_that_comes_while_it_works_stops_each_writer_of_upkeep",),
    ),
    Mutation(
        "upkeep commits before what it wrote is on the disk",
        "src/closedloop/log/rewrite.py",
        "    store.sync()\n    gone = ",
        "    gone = ",
        ("tests/log/test_upkeep.py::test_all_is_on_the_disk_before_a_commit_names_it_and_before_anything_is_removed",),
    ),
    Mutation(
        "the clean-up forgets the files of pinned versions",
        "src/closedloop/log/clean.py",
        "    for version in kept:\n        needed.update(_paths(table, version))\n",
        "",
        ("tests/log/test_upkeep.py::test_pinned_versions_stay_as_they_were_and_go_when_the_pin_does",),
    ),
    Mutation(
        "a compaction writes the columns that it knows, and no others",
        "src/closedloop/log/rewrite.py",
        "        self.schema = Schema.from_arrow(opened.schema())\n",
        '        self.schema = __import__("closedloop.log.tables").log.tables.SCHEMAS[name]\n',
        ("tests/log/test_versions.py::test_a_compaction_keeps_the_columns_of_a_later_release",),
    ),
)


def main(words: list[str]) -> int:
    """Print what became of each mutation."""
    chosen = [mutation for mutation in MUTATIONS if not words or any(word in mutation.what for word in words)]
    shutil.rmtree(STAGE, ignore_errors=True)
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, STAGE / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, STAGE)
    tests = sorted({test for mutation in chosen for test in mutation.tests})
    if not _green(tests):
        print("red without any mutation: see above")
        return 1
    survivors = 0
    for mutation in chosen:
        begun, file = time.monotonic(), STAGE / mutation.file
        whole = file.read_text(encoding="utf-8")
        file.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
        alive = _green(list(mutation.tests), quiet=True)
        file.write_text(whole, encoding="utf-8")
        survivors += alive
        took = time.monotonic() - begun
        print(f"{'NOT NOTICED' if alive else 'noticed':12} {mutation.what} ({took:.0f} s)", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} noticed")
    return 1 if survivors else 0


def _green(tests: list[str], *, quiet: bool = False) -> bool:
    """Whether these tests pass on the copy. A test that hangs has noticed."""
    path = os.pathsep.join(map(str, (STAGE / "src", STAGE)))
    command = [str(Path(sys.executable).with_name("pytest")), "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command,
            cwd=STAGE,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=quiet,
            timeout=600 if quiet else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with {done.returncode}: {' '.join(tests)}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
