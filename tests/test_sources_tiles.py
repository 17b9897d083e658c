"""Ranges tile the rows, and their hashes see the rows and nothing else."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.sources.catalog import Range, Segment
from runner.sources.tiles import Tiler, part_rows


def tile(
    files: list[list[bytes]],
    setting: int | Literal["auto"],
    size: int,
    *,
    gap: int = 0,
    headers: list[tuple[str, ...]] | None = None,
) -> tuple[Range, ...]:
    """Every row on a line of its own, `gap` blank bytes between them."""
    tiler = Tiler(setting, headers or [()] * len(files))
    for number, rows in enumerate(files):
        offset = 0
        for line, raw in enumerate(rows, 1):
            tiler.add(number, (offset, line, raw, None, None))
            offset += len(raw) + 1 + gap
    ranges = tiler.ranges(size)
    assert tiler.file_rows == [len(rows) for rows in files]
    return ranges


@pytest.mark.parametrize(
    ("rows", "setting", "expected"),
    [
        (0, "auto", 256),
        (1, "auto", 256),
        (256 * 64, "auto", 256),
        (256 * 64 + 1, "auto", 512),
        (1024 * 64, "auto", 1024),
        (1024 * 64 + 1, "auto", 2048),
        (1_000_000, "auto", 8192),
        (10_000_000, "auto", 8192),
        (10, 1, 1),
        (10, 100_000, 100_000),
    ],
)
def test_a_range_is_a_64th_of_the_rows_as_a_power_of_two(
    rows: int, setting: int | Literal["auto"], expected: int
) -> None:
    assert part_rows(rows, setting) == expected


def test_a_range_may_span_files() -> None:
    first, second = tile([[b"aa", b"b"], [], [b"c", b"dd"]], 3, 3)
    assert first.segments == (Segment(0, 0, 4, 0, 2, 1), Segment(2, 0, 1, 2, 1, 1))
    assert second.segments == (Segment(2, 2, 4, 3, 1, 2),)
    assert (first.first, first.rows, second.first, second.rows) == (0, 3, 3, 1)


@settings(deadline=None, max_examples=60)
@given(files=st.lists(st.integers(0, 700), max_size=5), size=st.integers(1, 900) | st.sampled_from([256, 512]))
def test_ranges_tile_the_input_exactly(files: list[int], size: int) -> None:
    rows = [[b"%d" % n for n in range(count)] for count in files]
    ranges = tile(rows, "auto" if size in {256, 512} else size, size)
    total = sum(files)
    assert [piece.first for piece in ranges] == list(range(0, total, size))
    assert [piece.rows for piece in ranges] == [min(size, total - first) for first in range(0, total, size)]
    segments = [segment for piece in ranges for segment in piece.segments]
    assert [segment.first for segment in segments] == [sum(s.rows for s in segments[:n]) for n in range(len(segments))]
    for number, count in enumerate(files):
        mine = [segment for segment in segments if segment.file == number]
        assert sum(segment.rows for segment in mine) == count
        assert b"\n".join(b"\n".join(rows[number])[s.start : s.end] for s in mine) == b"\n".join(rows[number])


ROWS = [b"row %d" % n for n in range(1000)]


def hashes(*args: object, **kwargs: object) -> list[str]:
    return [piece.hash for piece in tile(*args, **kwargs)]  # type: ignore[arg-type]  # as tile


def test_blank_lines_and_files_do_not_matter_to_a_hash() -> None:
    plain = hashes([ROWS], 512, 512)
    assert len(set(plain)) == 2
    assert hashes([ROWS], 512, 512, gap=1) == plain
    assert hashes([ROWS[:300], ROWS[300:]], 512, 512) == plain


def test_a_size_that_is_given_and_one_that_is_found_hash_alike() -> None:
    assert hashes([ROWS], "auto", 512) == hashes([ROWS], 512, 512)


def test_rows_added_at_the_end_leave_whole_ranges_alone() -> None:
    assert hashes([ROWS], 300, 300)[:3] == hashes([ROWS[:900]], 300, 300)
    assert hashes([ROWS], 300, 300)[3] != hashes([ROWS[:999]], 300, 300)[3]


@pytest.mark.parametrize("place", [0, 255, 256, 511, 512, 999])
def test_one_changed_row_changes_one_hash(place: int) -> None:
    changed = [*ROWS[:place], b"other", *ROWS[place + 1 :]]
    pairs = list(zip(hashes([ROWS], 512, 512), hashes([changed], 512, 512), strict=True))
    assert [one == other for one, other in pairs] == [place >= 512, place < 512]


def test_where_one_row_ends_and_the_next_begins_matters() -> None:
    assert hashes([[b"ab", b"c"]], 2, 2) != hashes([[b"a", b"bc"]], 2, 2)


def test_the_header_belongs_to_what_csv_rows_say() -> None:
    one = hashes([[b"1,2"]], 1, 1, headers=[("a", "b")])
    assert one != hashes([[b"1,2"]], 1, 1, headers=[("b", "a")])
    assert one == hashes([[b"1,2"]], 1, 1, headers=[("a", "b")])


def test_large_rows_are_hashed_like_small_ones() -> None:
    large = [bytes([n]) * 700_000 for n in range(5)]
    assert hashes([large], 5, 5) == hashes([large[:2], large[2:]], 5, 5)
