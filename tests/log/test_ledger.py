"""The bounds of commits that were removed: as few as say the same."""

import random
from itertools import pairwise

import pytest

from closedloop.log import ledger, pins, upkeep
from closedloop.log.history import Bounds
from closedloop.log.ledger import merged
from closedloop.log.pins import Pin
from closedloop.log.read import read
from closedloop.log.rewrite import Table


def bound(floors, row, file, until):
    """What a reader of a version takes for a row: what its file knew, and what the floors say."""
    known = [least for start, end, least in floors if start >= row and end <= file]  # it knew all up to its last commit
    later = Bounds((start, least) for start, end, least in floors if end <= until).at(row)
    return min([*known, *([] if later is None else [later])], default=None)


@pytest.mark.parametrize("seed", range(300))
def test_merged_floors_bound_each_row_of_each_version_as_before(seed):
    rng = random.Random(seed)  # noqa: S311
    cuts = sorted(rng.sample(range(60), rng.randint(2, 20)))
    floors = [(a, b - 1, rng.randrange(100)) for a, b in pairwise(cuts) if rng.random() < 0.9]
    if rng.random() < 0.3 and floors:  # a clean-up that was killed left one that overlaps
        start, end, _ = rng.choice(floors)
        floors.append((start, end + rng.randint(-1, 5), rng.randrange(100)))
    edges = sorted(rng.sample(range(70), rng.randint(1, 6)))
    spans = [(a, b - 1) for a, b in zip(edges, [*edges[1:], edges[-1] + 1], strict=True) if rng.random() < 0.8]
    kept = rng.sample(range(70), rng.randint(0, 3))
    fewer = merged(floors, kept, spans)
    for first, last in spans:
        for row in range(first, last + 1):
            for until in (*kept, 1000):
                if last <= until:
                    # what the file knew, it knew from the floors of its day
                    own = [least for start, end, least in floors if start >= row and end <= last]
                    later = Bounds((start, least) for start, end, least in fewer if end <= until).at(row)
                    now = min([*own, *([] if later is None else [later])], default=None)
                    assert bound(floors, row, last, until) == now


def test_without_pins_and_files_one_is_left():
    assert [(0, 9, 2)] == merged([(0, 3, 5), (4, 6, 2), (7, 9, 8)], [], [])


def test_they_do_not_grow_with_each_upkeep(kit, tmp_path, sink, place, schema):
    """Hundreds of clean-ups leave as many as there are pins and files, and not one for each of them."""
    most = 0
    for turn in range(25):
        kit.fill(tmp_path / "one", *[[kit.scored(f"{turn}-{i}", received_us=kit.noon + turn)] for i in range(18)])
        kit.ship(tmp_path / "one", sink)
        upkeep.keep(place, lambda _: None, upkeep.UpkeepSettings(everything=True, grace_seconds=0))
        if turn == 10:
            version = place.open("requests").version()
            pins.put(place, Pin("main", "main", {"requests": version}))
            pinned = read(place, schema, {"requests": version}).tables.fingerprint()
        most = max(most, len(ledger.load(Table(place, "requests").store, "requests").floors))
    assert 1 < most <= 6
    assert pinned == read(place, schema, {"requests": version}).tables.fingerprint()
