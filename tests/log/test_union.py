"""The union of overlapping slices, against a plain dictionary."""

import numpy as np
import pytest

from closedloop.log.union import Union, from_bits, to_bits

# Machines that are few and near each other, which has an order of its own, or far apart; one key, two, three.
KEYS = {
    "near": lambda rng, n: [rng.integers(1, 9, n), rng.integers(0, 50, n) * 3_600_000_000],
    "far": lambda rng, n: [rng.integers(1, 9, n) * 10**12, rng.integers(0, 50, n) * 3_600_000_000],
    "too far to be packed": lambda rng, n: [rng.integers(1, 9, n) * 10**18, rng.integers(-20, 20, n) * 10**17],
    "one": lambda rng, n: [rng.integers(1, 90, n)],
    "three": lambda rng, n: [rng.integers(1, 5, n), rng.integers(0, 9, n), rng.integers(0, 4, n)],
}


def expected(keys, rows):
    """Of rows (columns..., rank) the winners by key, and apart the distinct values that lost."""
    best = {}
    for *row, rank in rows:
        best[tuple(row[:keys])] = max((rank, row), best.get(tuple(row[:keys]), (-1, None)), key=lambda found: found[0])
    winners = sorted(row for _, row in best.values())
    return winners, {tuple(row) for *row, _ in rows} - {tuple(row) for row in winners}


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("expect", [0, 10_000])
def test_of_rows_with_one_key_the_highest_rank_wins_and_other_values_are_kept_apart(kind, in_order, expect):
    rng = np.random.default_rng(3)
    count = 6000
    key = KEYS[kind](rng, count)
    if in_order:
        order = np.lexsort(key[::-1])
        key = [column[order] for column in key]
    values = [rng.integers(0, 3, count), to_bits(rng.choice([0.5, -0.0, 0.0, np.nan], count))]
    rank = rng.permutation(count)
    union = Union(len(key), len(key) + 2, expect)
    for start in range(0, count, 700):
        part = slice(start, start + 700)
        union.add([column[part] for column in (*key, *values)], rank[part])
    winners, lost = union.result()
    won, apart = expected(len(key), list(zip(*(x.tolist() for x in (*key, *values, rank)), strict=True)))
    assert won == winners.T.tolist()
    assert apart == set(map(tuple, lost.T.tolist()))
    assert lost.shape[1] == len(apart)


def test_nothing_has_no_rows():
    winners, lost = Union(2, 4).result()
    assert [(4, 0), (4, 0)] == [winners.shape, lost.shape]


def test_floats_come_back_bit_by_bit_but_for_the_sign_of_zero():
    values = np.array([1.5, -0.0, np.inf, np.nan, 5e-324])
    assert np.array_equal(np.array([1.5, 0.0, np.inf, np.nan, 5e-324]), from_bits(to_bits(values)), equal_nan=True)
