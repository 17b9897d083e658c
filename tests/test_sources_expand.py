"""Patterns become files in one order, and a pattern that matches nothing is told in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.errors import InputError
from runner.sources.expand import common_format, expand


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in [
        "b.jsonl",
        "a.jsonl",
        "c.csv",
        "d.NDJSON",
        ".hidden.jsonl",
        "notes.txt",
        "sub/e.jsonl",
        "[x]/f.parquet",
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["a.jsonl"], ["a.jsonl"]),
        (["b.jsonl", "a.jsonl"], ["b.jsonl", "a.jsonl"]),
        (["*.jsonl"], ["a.jsonl", "b.jsonl"]),
        (["b.jsonl", "*.jsonl"], ["b.jsonl", "a.jsonl"]),
        (["."], ["a.jsonl", "b.jsonl", "c.csv", "d.NDJSON"]),
        (["**/*.jsonl"], ["a.jsonl", "b.jsonl", "sub/e.jsonl"]),
        (["sub"], ["sub/e.jsonl"]),
        (["sub/../a.jsonl", "a.jsonl"], ["a.jsonl"]),
        (["[x]/f.parquet"], ["[x]/f.parquet"]),
        (["notes.txt"], ["notes.txt"]),
        (["?.csv", "sub/*"], ["c.csv", "sub/e.jsonl"]),
        ([], []),
    ],
)
def test_patterns_give_files_in_order(base: Path, patterns: list[str], names: list[str]) -> None:
    assert expand(patterns, base) == [base / name for name in names]


def test_an_absolute_pattern_needs_no_base(base: Path) -> None:
    assert expand([str(base / "*.csv")], Path("/nowhere")) == [base / "c.csv"]


def test_a_base_with_brackets_is_no_pattern(base: Path) -> None:
    assert expand(["*.parquet"], base / "[x]") == [base / "[x]" / "f.parquet"]


def test_a_link_keeps_its_own_name_and_counts_once(base: Path) -> None:
    (base / "blob").touch()
    (base / "link.csv").symlink_to(base / "blob")
    assert expand(["link.csv", "blob"], base) == [base / "link.csv"]


@pytest.mark.parametrize(
    ("pattern", "message", "hint"),
    [
        ("a.jsnl", "nothing matches `a.jsnl`; looked for {base}/a.jsnl", "did you mean `a.jsonl`"),
        (
            "sbu/e.jsonl",
            "nothing matches `sbu/e.jsonl`; looked for {base}/sbu/e.jsonl",
            "did you mean `sub` in {base}?",
        ),
        ("sub/zzz", "looked for {base}/sub/zzz", "{base}/sub holds e.jsonl"),
        ("empty", "`empty` holds no file to read; looked in {base}/empty", "give it one of the suffixes .jsonl"),
        ("empty/*", "nothing matches `empty/*`; looked for {base}/empty/*", "{base}/empty holds nothing"),
    ],
)
def test_nothing_matched_names_the_pattern_the_place_and_what_is_near(
    base: Path, pattern: str, message: str, hint: str
) -> None:
    (base / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        expand([pattern], base)
    assert message.format(base=base) in caught.value.message
    assert hint.format(base=base) in caught.value.hint


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (["a.jsonl", "b.ndjson"], None, "jsonl"),
        (["a.CSV"], None, "csv"),
        (["a.parquet"], None, "parquet"),
        (["a.txt", "b.json"], "jsonl", "jsonl"),
    ],
)
def test_the_suffix_or_the_job_tells_the_format(names: list[str], given: str | None, expected: str) -> None:
    assert common_format(map(Path, names), given) == expected


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["a.jsonl", "b.csv"], None, "the input mixes formats: a.jsonl is jsonl, b.csv is csv"),
        (["a.txt"], None, "a.txt: the suffix does not tell the format"),
        (["a.jsonl.bz2"], None, "a.jsonl.bz2: of compressed files, .gz and .zst can be read"),
        (["a.gz"], None, "a.gz: the suffix does not tell the format"),
        (
            ["a.parquet.gz"],
            None,
            "a.parquet.gz: Parquet is read from its end, so neither from stdin nor compressed as a whole",
        ),
        (
            ["/dev/stdin"],
            "parquet",
            "stdin: Parquet is read from its end, so neither from stdin nor compressed as a whole",
        ),
        (["a.jsonl"], "openai_batch", "input.format: `openai_batch` cannot be read"),
        ([], None, "the input names no file"),
    ],
)
def test_files_that_do_not_go_together_are_refused(names: list[str], given: str | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        common_format(map(Path, names), given)
    assert caught.value.message == message
    assert caught.value.hint
