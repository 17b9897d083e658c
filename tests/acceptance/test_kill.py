"""Kill -9 at any instant: nothing is lost, nothing is doubled, the bill holds every request that left."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from echo import Echo
from house import Audit, House, audit, environment, manifest, sent_again
from story import BLIND, FIRST, REPLAY, SEALED, SEALING, SURVEY, TRAFFIC, Aim, Story, tell
from watcher import ENOUGH

import runner

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="aims by what a process has open")

#: name: settings of the endpoint, settings of the house, aims
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], list[Aim]]] = {
    "many small parts": (
        {"latency_s": 0.04, "ration": 28},
        {"rows": 500, "concurrency": 8, "rows_per_part": 16},
        [SEALING] * 5 + [SEALED] * 3 + [TRAFFIC] * 3 + [FIRST] * 2 + [REPLAY] * 2 + [BLIND],
    ),
    "a large input": (
        {"latency_s": 0.04, "ration": 24},  # never enough to finish the run before it was killed as planned
        {"rows": 320, "concurrency": 16, "rows_per_part": 32, "pad_bytes": 60_000},
        [SURVEY] * 5 + [TRAFFIC] * 3 + [REPLAY] * 2 + [SEALING] * 3,
    ),
    "a failing endpoint": (
        {"latency_s": 0.04, "failing": 0.15, "ration": 30},
        {"rows": 400, "concurrency": 12, "rows_per_part": 128},
        [TRAFFIC] * 8 + [FIRST] * 3 + [REPLAY] * 2,
    ),
}


def _tell(house: House, name: str, watched: Future[bytes]) -> Story:
    luck, aims = random.Random(name), RUNS[name][2]
    return tell(house, [aims[0], *luck.sample(aims[1:], len(aims) - 1)], luck, watched.result)


@contextmanager
def _watched(houses: Iterable[House]) -> Iterator[tuple[Future[bytes], dict[str, Any]]]:
    """Somebody reads all the runs meanwhile: when that was often enough, and the verdict, which is there at the end."""
    words = [sys.executable, str(Path(__file__).with_name("watcher.py")), *(str(house.run()) for house in houses)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    with process, ThreadPoolExecutor(1) as thread:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # its imports are done
        enough, verdict = thread.submit(process.stdout.readline), dict[str, Any]()
        try:
            yield enough, verdict
        finally:
            process.stdin.close()
        enough.result()
        verdict |= json.loads(process.stdout.readline())


@dataclass(frozen=True)
class Told:
    stories: dict[str, Story]
    watcher: dict[str, Any]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Every run, killed as often as planned and then finished; side by side, since each is mostly waited for."""
    with ExitStack() as stack:
        houses = {}
        for name, (endpoint, settings, _) in RUNS.items():
            echo = stack.enter_context(Echo(**endpoint, seed=len(name)))
            houses[name] = House(tmp_path_factory.mktemp(name.replace(" ", "-")), echo, **settings)
            stack.callback(houses[name].close)
        with _watched(houses.values()) as (enough, watcher), ThreadPoolExecutor(len(RUNS)) as threads:
            told = threads.map(_tell, houses.values(), RUNS, repeat(enough))
            stories = dict(zip(RUNS, told, strict=True))
        yield Told(stories, watcher)


@pytest.fixture(params=RUNS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def story(told: Told, name: str) -> Story:
    return told.stories[name]


@pytest.fixture
def found(story: Story) -> Audit:
    return audit(story.house)


def test_the_kills_hit_survey_replay_traffic_and_sealing(told: Told, record_property: Any) -> None:
    phases = sum((story.phases for story in told.stories.values()), Counter[str]())
    record_property("kills", dict(phases))
    print(f"\n{phases.total()} kills: {dict(phases)}")
    assert phases.total() >= 40
    assert min(phases[phase] for phase in ("survey", "replay", "traffic", "sealing")) >= 2


def test_no_row_is_lost_or_doubled_and_every_answer_belongs_to_its_row(story: Story, found: Audit) -> None:
    assert found.complaints() == []
    frame = runner.read_results(story.house.run())
    assert frame["row_index"].to_list() == list(range(story.house.rows))
    assert frame["content"].to_list() == [f"echo of {text}" for text in story.house.texts]
    assert sorted(path.name for path in (story.house.run() / "journal").iterdir()) == []


def test_every_request_that_arrived_is_in_the_bill(story: Story, found: Audit) -> None:
    house = story.house
    assert found.exchanges >= len(house.echo.arrivals)
    # What is in the bill and never arrived was noted and had not left yet: never more than the slots of each life.
    assert found.exchanges - len(house.echo.arrivals) <= story.kills * house.concurrency
    totals = manifest(house)["totals"]
    assert (totals["exchanges"], totals["unknown_exchanges"]) == (found.exchanges, found.unknown)
    assert totals["rows"] == {"ok": house.rows}


def test_a_kill_sends_no_more_than_twice_the_concurrency_again(
    story: Story, found: Audit, name: str, record_property: Any
) -> None:
    again = sent_again(story.house.echo)
    mean = again.total() / story.kills
    line = (
        f"{name}: {story.house.rows} rows, {story.house.concurrency} in flight, {story.kills} kills "
        f"{dict(story.phases)}, {len(found.lost)} rows lost, {len(found.doubled)} doubled, sent again per kill "
        f"{mean:.1f} (most {max(again.values(), default=0)}), {found.unknown} unknown of {found.exchanges} exchanges, "
        f"{len(story.house.echo.arrivals)} arrivals"
    )
    record_property("summary", line)
    print(f"\n{line}")
    assert max(again.values(), default=0) <= 2 * story.house.concurrency


def test_what_each_life_left_on_the_wire_is_told_by_the_next(story: Story, found: Audit) -> None:
    """The numbers in the words add up to the attempts that are UNKNOWN."""
    told = 0
    for life in story.house.lives:
        words = [line.split(" request")[0] for line in life.said().split("\n") if "on the wire when the last" in line]
        assert len(words) <= 1
        told += sum(map(int, words))
    assert told <= found.unknown  # a life that died before it could speak has told nobody


def test_readers_see_whole_parts_and_each_row_once_at_any_instant(told: Told) -> None:
    assert told.watcher["complaints"] == []
    looks = told.watcher["looks"]
    print(f"\nread meanwhile: {looks}")
    assert all(looks[way] >= least for way, least in ENOUGH.items())
