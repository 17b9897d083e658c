"""What a report counts, how its numbers are written, and which charts and tables it makes of them."""

from __future__ import annotations

import math
import random
import re
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.bill import bill, words
from runner.errors import UsageError
from runner.outputs.choices import choices_in
from runner.records import Failure, Kind, Settled, Status
from runner.report import OURS, report, write
from runner.report.charts import Clock, _rules, clock_of, histogram
from runner.report.examples import SHAPES, TOP, Failings, Leaders
from runner.report.gather import Facts, gather
from runner.report.spread import Spread
from runner.report.text import (
    cut,
    length,
    share_of,
    tick_length,
    tick_moment,
    tick_numbers,
    visible,
)
from runner.report.timeline import BINS, Course, Timeline
from runner.scales import SECOND, axis_to
from tests.hostile import HOSTILE
from tests.made_run import MadeRun, made_run
from tests.reported import REQUEST, SCHEMA, answer, attempt, hostile_run, settled

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def run_of(root: Path, rows: int, **job: Any) -> MadeRun:
    return made_run(root / "run", [{"text": f"row {n}", "id": f"T-{n}"} for n in range(rows)], request=REQUEST, **job)


LIMITED = attempt(1, "0", error_kind="RATE", http_status=429, seconds=0.25)


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    made = run_of(tmp_path, 6, input={"id_column": "id"}, tags={"team": "support"})
    made.seal(
        0,
        [
            settled(0, answer("spam"), attempt(1, "0.1")),
            settled(1, answer("ham", urgent=True), LIMITED, attempt(2, "0.3", 2, seconds=4.0), done_s=6),
            settled(2, Failure(Kind.SERVER, "broken 17", 500), attempt(1, None, error_kind="SERVER", http_status=500)),
            settled(3, Failure(Kind.SERVER, "broken 4", 500), attempt(1, "0.2", error_kind="SERVER", http_status=500)),
            settled(4, Failure(Kind.INPUT, "no text")),
            settled(5, answer(status=Status.TRUNCATED), attempt(1, "0.05", finish_reason="length")),
        ],
    )
    return made


def told(made: MadeRun) -> Facts:
    return gather(made.directory)


class Page(HTMLParser):
    """Tags with their attributes, and text, of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] != "style":
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(text for text in self.texts if text)


def shown(made: MadeRun) -> Page:
    return Page(report(made.directory, NOW))


def test_the_page_says_what_ran_what_became_of_it_and_what_it_cost(run: MadeRun) -> None:
    text = shown(run).text
    for said in (
        "Run report · stopped",
        "made",
        "Tags team: support",
        "Model m-1",
        "Answered by m-1-2025 (3 rows)",
        "Endpoint https://api.example.com/v1",
        "ok 2 33.3 % truncated 1 16.7 % failed 3 50.0 %",
        "SERVER 2 66.7 % INPUT 1 33.3 %",
        "Cost $0.6500 $0.2000 of it wasted (30.8 %)",
        "Cost unknown 1 exchange, in no sum; no bound is known",
        "spam 1 16.7 % $0.100000 no value 4",
        "Never answered: never.",
        "SERVER, HTTP 500 broken 17 T-2, T-3 2",
        "INPUT no text T-4 1",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("most", "unknown", "left", "of"),
    [
        (2, "0", "$1.35", "of $2.00: $0.6500 spent"),
        (2, "0.25", "$1.10", "of $2.00: $0.6500 spent, $0.2500 kept for unknown"),
        (0.5, "0", "$0", "of $0.5000: $0.6500 spent"),  # it was lowered later
    ],
)
def test_a_budget_is_shown_with_what_is_left_of_it(run: MadeRun, most: float, unknown: str, left: str, of: str) -> None:
    known = run.directory.read_run() or {}
    job = known["job"] | {"budget": {"max_usd": most}}
    run.directory.write("run.json", known | {"job": job, "unknown_usd": unknown})
    assert f"Budget left {left} {of}" in shown(run).text
    run.directory.write("run.json", known)
    assert "Budget" not in shown(run).text


def test_what_an_earlier_version_did_not_write_down_is_left_out(run: MadeRun) -> None:
    known = run.directory.read_run() or {}
    facts = {"prices": {"m-1": [{"source": "job", "input": "1"}]}, "versions": None, "tags": None}
    run.directory.write("run.json", known | facts)
    text = shown(run).text
    assert "Price m-1: $1.00 in per million tokens (the job's price)" in text and "Made 2026" in text


def test_what_the_exchanges_cost_is_what_the_bill_says(run: MadeRun) -> None:
    found, by_label = told(run), bill([run.directory.root], ("parsed.label",))
    assert found.models.total == by_label.total
    assert found.answers[("label",)].lines == by_label.lines
    assert {line["reason"]: line["exchanges"] for line in found.reasons} == {None: 3, "RATE": 1, "SERVER": 2}


def test_a_sum_of_nothing_but_unknown_costs_is_not_said_to_be_0(tmp_path: Path) -> None:
    made = run_of(tmp_path, 3)
    late = attempt(1, None, error_kind="TIMEOUT"), attempt(2, "0")
    free, unknown = settled(1, answer("ham"), attempt(1, "0")), settled(2, answer("spam"), attempt(1, None))
    made.seal(0, [settled(0, answer("never"), *late), free, unknown])
    text = shown(made).text
    assert "ham 1 33.3 % $0 never 1 33.3 % unknown spam 1 33.3 % unknown" in text
    assert "TIMEOUT: attempt deadline, stall, 408 1 1 unknown – " in text
    assert "m-1 3 unknown $0 2 4 40 8" in text and "Cost unknown 2 exchanges, in no sum; no bound is known" in text
    lines = words.table(bill([made.directory.root], ("parsed.label",)))
    assert [line.split()[-3] for line in lines[1:]] == ["$0.000000", "unknown", "unknown", "unknown"]


def test_rows_are_ranked_by_their_latency_and_by_all_their_exchanges(run: MadeRun) -> None:
    seen = told(run).seen
    assert [(row["name"], row["number"]) for row in seen.slowest.rows][:2] == [("T-1", 4.0), ("T-0", 0.5)]
    assert [(row["name"], row["spent_pico"]) for row in seen.dearest.rows] == [
        ("T-1", 300_000_000_000),
        ("T-3", 200_000_000_000),
        ("T-0", 100_000_000_000),
        ("T-5", 50_000_000_000),
    ]


def test_what_happened_when_is_counted_by_exchange_and_by_row(run: MadeRun) -> None:
    course = told(run).seen.timeline.course()
    assert course is not None
    sums = {name: int(values.sum()) for name, values in course.series.items()}
    assert sums == {
        "ok": 2,
        "not_ok": 4,
        "spent_pico": 650_000_000_000,
        "busy_us": 6_250_000,
        "limited": 1,
        "broken": 2,
    }
    assert (course.last_us - course.first_us) == 6 * SECOND


def test_exchanges_of_rows_that_are_not_final_are_seen_while_it_goes_on(tmp_path: Path) -> None:
    made = run_of(tmp_path, 3)
    made.keep(
        0, [settled(0, answer("spam"), attempt(1, "0.1"))], {1: LIMITED, 2: attempt(1, "0.4", error_kind="SERVER")}
    )
    found = told(made)
    course = found.seen.timeline.course()
    assert course is not None
    assert (int(course.series["limited"].sum()), int(course.series["broken"].sum())) == (1, 1)
    assert found.models.beside["not final"].cost_usd == Decimal("0.4")
    text = shown(made).text
    assert 'class="rest"' in report(made.directory, NOW)
    assert "not final yet 2 66.7 %" in text and "rows not final yet 0 $0.400000 $0.400000 0 2 " in text


def test_a_row_that_was_sent_again_counts_its_exchanges_once(tmp_path: Path) -> None:
    made = run_of(tmp_path, 1)
    made.seal(0, [settled(0, answer("spam"), attempt(1, "0.1"), attempt(2, "0.2", 5, epoch=2))])
    course = told(made).seen.timeline.course()
    assert course is not None and int(course.series["spent_pico"].sum()) == 300_000_000_000


def failed(n: int, cost: str | None = "0") -> Settled:
    return settled(n, Failure(Kind.TIMEOUT, "late"), attempt(1, cost, error_kind="TIMEOUT", seconds=None))


@pytest.mark.parametrize(
    ("rows", "present", "absent"),
    [
        ([], ["Rows final 0 of 0", "Not ok 0", "Cost $0"], ["Over time", "Latency", "Failures", "Rows that stand out"]),
        ([settled(0, Failure(Kind.INPUT, "no"))], ["Not ok 1 100 %", "Failures"], ["Latency", "Rows that stand out"]),
        ([settled(0, answer("ham"), attempt(1, "0.000001"))], ["Over time", "p50 500 ms", "No reply said 429."], []),
        ([failed(0), failed(1)], ["failed 2 100 %", "Other failed exchanges"], ["Latency", "Spend $"]),
        ([failed(0, None)], ["Cost unknown 1", "Nothing of known cost was spent."], []),
        ([settled(0, answer("ham"), attempt(1, "999999.99"))], ["$999,999.99", "$1,000k"], []),
    ],
    ids=["no row", "one never sent", "one", "all failed", "all of unknown cost", "enormous"],
)
def test_the_smallest_runs_and_the_strangest_make_a_page(
    tmp_path: Path, rows: list[Settled], present: list[str], absent: list[str]
) -> None:
    made = run_of(tmp_path, len(rows))
    if rows:
        made.seal(0, rows)
    else:
        made.end_empty()
    text = shown(made).text
    assert [words for words in present if words not in text] == []
    assert [words for words in absent if words in text] == []
    assert "nan" not in text.lower().split() and "None" not in text.replace("None.", "") and "inf" not in text.split()


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    text = shown(run_of(tmp_path, 3)).text
    assert "The run has stopped before its end" in text and "not final yet 3 100 %" in text


def test_result_columns_with_a_prefix_are_found(tmp_path: Path) -> None:
    made = run_of(tmp_path, 1, output={"prefix": "r_"})
    made.seal(0, [settled(0, answer("ham"), attempt(1, "0.5"))])
    text = shown(made).text
    assert "ham 1 100 % $0.500000" in text and "m-1 1 $0.500000 $0 0 1 10 2" in text


# The page is sealed


def test_nothing_on_the_page_can_run_or_load(run: MadeRun) -> None:
    page = shown(run)
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "footer", "div", "p", "h1"),
        *("h2", "h3", "dl", "dt", "dd", "bdi", "code", "table", "thead", "tbody", "tfoot", "tr", "th", "td"),
        *("figure", "figcaption", "svg", "desc", "line", "text", "path", "rect"),
    }
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert not {name for name in attributes if name.startswith("on")}
    assert not attributes & {"href", "src", "srcset", "style", "action", "xlink:href", "srcdoc", "data", "poster"}
    (policy,) = (attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'; style-src 'sha256-")


def test_fifty_hostile_strings_are_text_wherever_they_stand(tmp_path: Path) -> None:
    assert len(set(HOSTILE)) == 50
    made = hostile_run(tmp_path)
    text = report(made.directory, NOW)
    page, plain = Page(text), Page(text.replace("\n", ""))
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
    test_nothing_on_the_page_can_run_or_load(made)
    assert not {attr for _, attrs in page.tags for attr in attrs if attr.startswith("on")}
    text.encode("utf-8")
    assert visible(text) == text
    for known in ("<script>document.title='RAN'</script>", "{{ 7 * 7 }}", "safe⟨U+202E⟩gnp.exe", "␛[31mred"):
        assert known in page.text


@settings(deadline=None)
@given(st.text(st.characters(codec=None), max_size=60))
def test_visible_text_moves_nothing_and_can_be_written(text: str) -> None:
    found = visible(text)
    found.encode("utf-8")
    assert visible(found) == found
    assert not set(found) & {chr(code) for code in (*range(9), *range(11, 32), 127, 0x202E, 0x2028, 0x85)}
    assert all(letter in found for letter in text if letter.isalnum())


def brightness(colour: str) -> float:
    """Relative luminance as WCAG 2 has it."""
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_charts_can_be_seen_in_light_in_dark_and_on_paper(run: MadeRun) -> None:
    schemes = re.findall(r":root \{(.*?)\}", report(run.directory, NOW), re.DOTALL)
    assert len(schemes) == 3
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ground, name, least in (
            *(("paper", "ink", 7.0), ("paper", "soft", 4.5), ("notice", "ink", 4.5)),  # AA of text
            *(("paper", "area", 3.0), ("paper", "edge", 3.0), ("paper", "bad", 3.0)),  # AA of graphics
        ):
            assert contrast(colours[ground], colours[name]) >= least, (ground, name)


# Where it is written


def test_it_replaces_its_own_page_and_nothing_else(tmp_path: Path) -> None:
    page, other = tmp_path / "report.html", tmp_path / "job.yaml"
    text = f"<!doctype html>\n{OURS.decode()}\n"
    write(text, page)
    write(text + "2", page)
    assert page.read_text() == text + "2"
    other.write_text("name: x\n")
    for place in (other, tmp_path, tmp_path / "gone" / "x.html"):
        with pytest.raises(UsageError):
            write(text, place)
    assert other.read_text() == "name: x\n"


def test_every_page_can_be_replaced(run: MadeRun) -> None:
    assert OURS in report(run.directory, NOW).encode()[:200]


# Bins of time


def drawn(timeline: Timeline) -> Course:
    course = timeline.course()
    assert course is not None
    return course


@settings(deadline=None, max_examples=EXAMPLES)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4 * 10**9), st.integers(0, 10**8)), min_size=1, max_size=10),
        min_size=1,
        max_size=6,
    )
)
def test_bins_add_up_to_what_went_in_however_far_apart(pieces: list[list[tuple[int, int]]]) -> None:
    timeline = Timeline()
    for piece in pieces:
        starts = np.array([start * 1000 for start, _ in piece], np.int64)
        ends = starts + np.array([span * 1000 for _, span in piece], np.int64)
        timeline.in_flight(starts, ends)
        timeline.count("ok", ends)
        timeline.count("spent_pico", ends, np.arange(len(ends)))
    everything = [pair for piece in pieces for pair in piece]
    for course in (drawn(timeline), drawn(timeline).drawn(10)):
        assert int(course.series["ok"].sum()) == len(everything)
        assert int(course.series["busy_us"].sum()) == 1000 * sum(span for _, span in everything)
        assert all(0 <= busy <= course.width_us * len(everything) for busy in course.series["busy_us"].tolist())
        assert len(course.series["ok"]) <= BINS
        assert course.first_us == min(1000 * start for start, _ in everything)
        assert course.last_us == max(1000 * (start + span) for start, span in everything)
        last = len(course.series["ok"]) - 1  # what ends all is no bin of its own
        for number, count in enumerate(course.series["ok"].tolist()):
            ends = (1000 * (start + span) // course.width_us - course.origin for start, span in everything)
            inside = [end for end in ends if min(end, last) == number]
            assert count == len(inside)


def test_what_happened_last_makes_no_bin_of_its_own() -> None:
    timeline = Timeline()
    timeline.count("ok", np.array([0, SECOND]))
    assert drawn(timeline).coarser(SECOND).series["ok"].tolist() == [2]


def test_a_request_is_in_flight_in_every_bin_that_it_touches() -> None:
    timeline = Timeline()
    timeline.in_flight(np.array([500_000]), np.array([3_250_000]))
    course = drawn(timeline).coarser(SECOND)
    assert course.series["busy_us"].tolist() == [500_000, 1_000_000, 1_000_000, 250_000]
    assert [course.seconds(number) for number in range(4)] == [0.5, 1, 1, 0.5]


def test_long_pauses_do_not_make_bins_coarse() -> None:
    timeline = Timeline()
    for start in (0, 3 * 86_400):
        timeline.count("ok", (np.arange(1000) + start) * SECOND)
    course = drawn(timeline)
    assert course.work_s == pytest.approx(2000, rel=0.1)
    assert course.drawn(2000).width_us == 30 * SECOND


def test_nothing_has_no_course() -> None:
    timeline = Timeline()
    timeline.count("ok", np.array([], np.int64))
    timeline.in_flight(np.array([], np.int64), np.array([], np.int64))
    assert timeline.course() is None


# Lengths of time


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e7), min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_those_of_the_values_within_a_bin(values: list[float], share: float) -> None:
    spread = Spread()
    spread.add(np.array([*values, math.nan]))
    expected = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert spread.quantile(share) == pytest.approx(expected, rel=0.0028)
    assert spread.count == len(values)


def test_a_single_length_is_told_exactly() -> None:
    spread = Spread()
    spread.add(np.array([0.123456]))
    assert spread.quantile(0.5) == spread.quantile(0.99) == 0.123456


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(1e-6, 1e7), min_size=1, max_size=50))
def test_a_histogram_holds_every_row(values: list[float]) -> None:
    spread = Spread()
    spread.add(np.array(values))
    assert sum(spread.between([spread.low_s / 2, *sorted({0.001, 1.0, 60.0}), 1e8])) == len(values)
    chart = histogram("Latency", "rows", spread)
    assert f"{len(values):,} rows" in chart.told
    assert all(0 <= tick.at <= 100 for tick in chart.x) and all(0 <= rule.at <= 100 for rule in chart.rules)
    assert sorted(rule.line for rule in chart.rules) == [0, 1, 2]


def clock_from(*starts_h: float) -> Clock:
    """Half an hour of work at each of these hours since a midnight."""
    timeline = Timeline()
    for start in starts_h:
        timeline.count("ok", np.array([int(start * 3600 + 20 * number) * SECOND for number in range(90)]))
    course = timeline.course()
    assert course
    return clock_of(course.drawn(1000))


def test_an_axis_of_several_days_says_where_each_begins() -> None:
    ticks = clock_from(22.0, 28.0, 46.0).ticks()
    assert [(tick.text, tick.below) for tick in ticks if tick.below] == [("22:00", "1 Jan"), ("04:00", "2 Jan")]
    over_midnight = clock_from(*(23.0 + 0.5 * number for number in range(5))).ticks()
    assert [(tick.text, tick.below) for tick in over_midnight if tick.below or "Jan" in tick.text] == [
        ("23:00", "1 Jan"),
        ("2 Jan", ""),
    ]
    assert not any(tick.below for tick in clock_from(1.0, 5.0, 22.0).ticks())


def test_a_label_stands_left_of_its_line_only_where_there_is_no_room_at_the_right() -> None:
    for text, share, end in (("p99 1 s", 0.8, False), ("p99 1 s", 0.95, True), ("p99 2 h 05 min", 0.75, True)):
        (rule,) = _rules([(text, share)])
        assert (rule.text, rule.end) == (text, end)


# Examples


def failures(*rows: tuple[str, int | None, str]) -> Any:
    kinds, codes, errors = zip(*rows, strict=True)
    names = [f"n{number}" for number in range(len(rows))]
    texts = {"error_kind": kinds, "error": errors, "name": names}
    plain = {name: pa.array(list(values), pa.string()) for name, values in texts.items()}
    return pa.table(plain | {"http_status": pa.array(list(codes), pa.int64())})


def test_sentences_that_differ_in_numbers_are_one_reason() -> None:
    found = Failings()
    for _ in range(2):
        found.add(
            failures(
                ("SERVER", 500, "request req_0a1b2c3d failed after 3 s"),
                ("SERVER", 500, "request req_99ff00aa failed after 14 s"),
                ("SERVER", 502, "request req_99ff00aa failed after 14 s"),
                ("INPUT", None, "no column text"),
            )
        )
    assert [(r.kind, r.http_status, r.message, r.count, r.rows) for r in found.reasons] == [
        ("SERVER", 500, "request req_0a1b2c3d failed after 3 s", 4, ["n0", "n1", "n0"]),
        ("SERVER", 502, "request req_99ff00aa failed after 14 s", 2, ["n2", "n2"]),
        ("INPUT", None, "no column text", 2, ["n3", "n3"]),
    ]
    assert found.kinds == {"SERVER": 6, "INPUT": 2}


def test_of_endlessly_many_sentences_the_rest_is_counted() -> None:
    found = Failings()
    words = [f"{chr(103 + n % 20)}{chr(103 + n // 20 % 20)}{chr(103 + n // 400)}" for n in range(SHAPES + 500)]
    found.add(failures(*(("SERVER", 500, word) for word in words)))
    assert len(found.reasons) == SHAPES + 1
    assert (found.reasons[0].message, found.reasons[0].count) == (None, 500)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.floats(0, 100) | st.just(math.nan), max_size=30), max_size=5))
def test_the_leaders_are_the_greatest_of_all_tables(tables: list[list[float]]) -> None:
    leaders = Leaders()
    for numbers in tables:
        leaders.add(pa.table({"name": [str(n) for n in range(len(numbers))]}), np.array(numbers, float))
    expected = sorted((n for numbers in tables for n in numbers if n > 0), reverse=True)[:TOP]
    assert [row["number"] for row in leaders.rows] == expected


# Members with few values


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (None, {}),
        (True, {}),
        (SCHEMA, {("label",): ("spam", "ham", "never"), ("urgent",): ("true", "false")}),
        ({"enum": ["a"]}, {}),
        ({"properties": {"n": {"enum": [1, 2.5, None, True]}}}, {("n",): ("1", "2.5", "true")}),
        (
            {"properties": {"a": {"properties": {"b": {"$ref": "#/$defs/B"}}}}, "$defs": {"B": {"enum": ["x"]}}},
            {("a", "b"): ("x",)},
        ),
        ({"properties": {"a": {"anyOf": [{"enum": ["x"]}, {"type": "null"}]}}}, {("a",): ("x",)}),
        ({"properties": {"a": {"anyOf": [{"enum": ["x"]}, {"type": "number"}]}}}, {}),
        ({"properties": {"a": {"items": {"enum": ["x"]}}}}, {}),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, {}),
        ({"properties": {"a": {"$ref": "#"}}}, {}),
        ({"properties": {"a": {"type": ["boolean", "null"]}}}, {("a",): ("true", "false")}),
    ],
)
def test_the_members_that_take_few_values_are_found_in_the_schema(schema: Any, expected: dict[Any, Any]) -> None:
    assert choices_in(schema) == expected


# Numbers as text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.00002, "0.02 ms"),
        (0.0853, "85.3 ms"),
        (0.9999, "1 s"),
        (1.5149, "1.51 s"),
        (89.9, "89.9 s"),
        (91, "2 min"),
        (5400, "1 h 30 min"),
        (172_799, "2 d 0 h"),
        (14 * 3600, "14 h 00 min"),
        (86_400 * 4000, "4,000 d 0 h"),
    ],
)
def test_lengths_are_written_for_people(seconds: float, text: str) -> None:
    assert length(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        *((0, 0, "–"), (0, 5, "0 %"), (5, 5, "100 %"), (1, 3, "33.3 %"), (1, 10**6, "<0.01 %"), (1, 2000, "0.05 %")),
        *((999_999, 10**6, ">99.99 %"), (1999, 2000, "99.95 %")),
    ],
)
def test_only_nothing_is_0_percent_and_only_all_is_100(part: float, whole: float, text: str) -> None:
    assert share_of(part, whole) == text


@pytest.mark.parametrize(
    ("peak", "texts"),
    [
        (3, ["0", "1", "2", "3"]),
        (0.03, ["0.00", "0.01", "0.02", "0.03"]),
        (9_000, ["0", "5k", "10k"]),
        (4_000, ["0", "1,000", "2,000", "3,000", "4,000"]),
        (60_000, ["0", "20k", "40k", "60k"]),
        (3e7, ["0", "10M", "20M", "30M"]),
        (9e18, ["0", "5e+18", "1e+19"]),
        (3e-9, ["0", "1e-09", "2e-09", "3e-09"]),
    ],
)
def test_ticks_of_one_axis_are_written_alike(peak: float, texts: list[str]) -> None:
    assert tick_numbers(axis_to(peak)) == texts


@pytest.mark.parametrize(
    ("peak", "texts"),
    [
        (1.2, ["$0", "$0.50", "$1.00", "$1.50"]),
        (300, ["$0", "$100", "$200", "$300"]),
        (15_000, ["$0", "$5k", "$10k", "$15k"]),
        (0.003, ["$0", "$0.001", "$0.002", "$0.003"]),
    ],
)
def test_ticks_of_dollars_are_written_as_money(peak: float, texts: list[str]) -> None:
    assert tick_numbers(axis_to(peak), "$") == texts


@pytest.mark.parametrize(
    ("at_s", "step_s", "text"),
    [
        (0, 60, "22:00"),
        (7200, 3600, "2 Mar"),
        (7260, 60, "00:01"),
        (7, 1, "22:00:07"),
        (7.25, 0.1, "22:00:07.2"),
        (0, 86400, "2026-03-01"),
    ],
)
def test_ticks_of_time_say_as_much_as_they_differ_in(at_s: float, step_s: float, text: str) -> None:
    assert tick_moment(1_772_402_400 * SECOND + int(at_s * SECOND), int(step_s * SECOND)) == text


def test_lengths_on_an_axis_have_one_unit_each() -> None:
    assert [tick_length(s) for s in (1e-6, 0.002, 0.5, 10, 120, 7200, 86400 * 5)] == [
        *("1 µs", "2 ms", "500 ms", "10 s", "2 min", "2 h", "5 d"),
    ]


def test_long_text_is_cut() -> None:
    assert (cut("abcd", 4), cut("abcde", 4)) == ("abcd", "abc…")


def test_many_rows_need_no_more_memory_than_few() -> None:
    luck = random.Random(1)
    timeline, spread = Timeline(), Spread()
    for _ in range(50):
        starts = np.array([luck.randrange(10**13) for _ in range(1000)], np.int64)
        timeline.in_flight(starts, starts + SECOND)
        spread.add(np.array([luck.random() for _ in range(1000)]))
    assert all(len(values) <= BINS for values in drawn(timeline).series.values())
    assert int(drawn(timeline).series["busy_us"].sum()) == 50_000 * SECOND and spread.count == 50_000
