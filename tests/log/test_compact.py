"""The policy of compaction over years, played through on sizes alone: few files, few rewritings, little in pins."""

import pytest

from closedloop.log import history
from closedloop.log.compact import FAN_IN, plan
from closedloop.log.rewrite import Data

RECORD = 2600  # bytes of a window of 72 hours in a file of many, and in memory
RECORD_MEMORY = 11_000
RAW, FRAME = 20_000, 15_000  # of a shipper's file of one record; of any file without its records
LARGE = 16 << 20


class Life:
    """A table's files; ``grow`` adds so many of shippers, compacts as upkeep does, and counts."""

    def __init__(self):
        self.files, self.pinned = [], {}
        self.commits = self.written = self.most = self.pins = 0

    def grow(self, commits):
        for _ in range(commits):
            self.commits += 1
            self.files.append(Data(f"part-{self.commits}", RAW, 1, self.commits, self.commits))
        self.most = max(self.most, len(self.files))
        while (run := plan(self.files)) is not None:
            rows = sum(file.rows for file in run)
            name = history.compacted_name(run[0].first, run[-1].last, f"{self.commits}x{rows}", rows * RECORD_MEMORY)
            merged = Data(name, FRAME + rows * RECORD, rows, run[0].first, run[-1].last)
            at = self.files.index(run[0])
            assert run == self.files[at : at + len(run)]  # side by side: rows stay in the order of arrival
            self.files[at : at + len(run)] = [merged]
            self.written += merged.size

    def pin(self):
        self.pins += 1
        self.pinned |= {file.path: file.size for file in self.files}

    @property
    def once(self):
        """Bytes of one compacted copy."""
        return self.commits * RECORD

    @property
    def held(self):
        """Bytes of all files that the newest version or a pin needs."""
        return sum((self.pinned | {file.path: file.size for file in self.files}).values())


def test_a_month_in_full_and_a_year_of_one_commit_a_day_with_weekly_pins_take_less_than_twice_a_copy():
    life = Life()
    for hour in range(30 * 24):
        life.grow(2 * 60)
        if hour % 168 == 167:
            life.pin()
    for day in range(335):
        life.grow(1)
        if day % 7 == 6:
            life.pin()
    assert life.pins >= 51
    assert life.held < 1.25 * life.once
    assert life.most < 2 * 60 + 40
    assert life.written < 4 * life.once


@pytest.mark.parametrize("a_day", [1, 20, 100, 400, 2880])
def test_at_any_rate_a_record_is_written_a_few_times_and_pins_hold_no_more_than_the_files_that_still_grow(a_day):
    """Each class has fewer than FAN_IN files that wait, and a large file is written for good."""
    life = Life()
    for day in range(365):
        for hour in range(24):
            life.grow(a_day // 24 + (hour < a_day % 24))
        if day % 7 == 6:
            life.pin()
    now = sum(file.size for file in life.files)
    waiting = 3 * (FAN_IN + 1)  # of the three classes of what upkeep wrote
    assert len(life.files) <= waiting + FAN_IN + 2 * life.once / LARGE
    assert life.written < 6 * life.once
    assert life.held - now < life.pins * FAN_IN * 1.2 * (LARGE // 8)


def test_files_that_are_a_large_one_together_become_one_though_they_are_few():
    """Else they would stay as they are for ever: no eighth one fits beside them."""
    size = 5 * LARGE // 32
    files = [Data(f"part-{n}", size, 1, n, n) for n in range(9)]
    assert files[:7] == plan(files)
    assert (
        plan([Data("part-0", LARGE - 1000, 1, 0, 0), *(Data(f"part-{n}", 2000, 1, n, n) for n in range(1, 5))]) is None
    )
