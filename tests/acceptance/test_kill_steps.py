"""Kill -9 at the steps that a run takes on the disk, in turn: before each, and half-way through each write.

Every so-manieth step is tried; THOROUGH=1 tries every single one.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from echo import Echo
from house import House, audit, environment, sent_again, until
from thorough import THOROUGH

KILLED = -signal.SIGKILL
EVERY_STEP = 1 if THOROUGH else 3


class Mortals:
    """Lives of the program that end at a step."""

    def __init__(self, place: Path) -> None:
        words = [sys.executable, str(Path(__file__).with_name("mortal.py")), str(place)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.__exit__(None, None, None)  # closes its stdin, at which it ends, and waits

    def live(self, house: House, dies_at: int | None, **more: str) -> tuple[int, int]:
        """(exit code, steps taken) of one life."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        house.echo.begin(house.echo.life + 1)
        order = {"words": ["run", str(house.job)], "dies_at": dies_at, "talk": str(house.root / "talk.txt")} | more
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code, steps = json.loads(self.process.stdout.readline())
        return code, steps


@dataclass(frozen=True)
class Trial:
    """A run that died at a step, died again early in its recovery, and was then let finish."""

    died_at: int
    kills: int
    sent_again: int  #: most per kill
    complaints: list[str]


def _try(mortals: Mortals, house: House, dies_at: int, again_at: int) -> Trial:
    first, _ = mortals.live(house, dies_at)
    second, _ = mortals.live(house, again_at)
    last, _ = mortals.live(house, None)
    talk = (house.root / "talk.txt").read_text(encoding="utf-8")
    complaints = audit(house).complaints() if last == 0 else [f"exit {last}: {talk}"]
    kills = (first == KILLED) + (second == KILLED)
    return Trial(dies_at, kills, max(sent_again(house.echo).values(), default=0), complaints)


def _try_each(place: Path, steps: range) -> list[Trial]:
    luck = random.Random(steps.start)
    place.mkdir()
    with Mortals(place / "steps") as mortals:
        return [
            _alone(place / f"house-{n}", lambda house, n=n: _try(mortals, house, n, luck.randint(1, 30))) for n in steps
        ]


def _alone(root: Path, act: Callable[[House], Any]) -> Any:
    with Echo() as echo:
        return act(House(root, echo, rows=3, concurrency=2, rows_per_part=2))


@dataclass(frozen=True)
class Tried:
    steps: int  #: of an undisturbed run
    trials: list[Trial]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """A run for each of the steps that are tried, every other one side by side."""
    place = tmp_path_factory.mktemp("steps")
    with Mortals(place / "steps") as mortals:
        code, steps = _alone(place / "house", lambda house: mortals.live(house, None))
    assert code == 0
    with ThreadPoolExecutor(2) as threads:
        shares = [range(first, steps + 1, 2 * EVERY_STEP) for first in (1, 1 + EVERY_STEP)]
        done = list(threads.map(_try_each, [place / "odd", place / "even"], shares))
    return Tried(steps, sorted([*done[0], *done[1]], key=lambda trial: trial.died_at))


def test_death_at_any_step_of_a_run_and_of_its_recovery_loses_nothing(tried: Tried, record_property: Any) -> None:
    trials, kills = tried.trials, sum(trial.kills for trial in tried.trials)
    most = max(trial.sent_again for trial in trials)
    line = f"death at {len(trials)} of {tried.steps} steps: {kills} kills, 2 requests in flight, "
    line += f"sent again per kill at most {most}"
    record_property("summary", line)
    print(f"\n{line}")
    assert [(trial.died_at, trial.complaints) for trial in trials if trial.complaints] == []
    assert tried.steps >= 50
    assert kills >= 1.5 * len(trials)  # a finished run has few steps to die at
    assert most <= 2 * 2


def test_while_the_disk_is_slow_no_more_leaves_than_a_kill_may_send_again(tmp_path: Path) -> None:
    """Twice the concurrency is what can be on the wire or back and not on disk; not one request more leaves."""
    with Echo() as echo, Mortals(tmp_path / "steps") as mortals:
        house = House(tmp_path / "house", echo, rows=60, concurrency=4, rows_per_part=64)
        enough = tmp_path / "enough"
        with ThreadPoolExecutor(1) as threads:
            life = threads.submit(mortals.live, house, None, dies_in_commit=str(enough))
            try:
                assert until(lambda: len(echo.arrivals) >= 2 * 4)
                time.sleep(0.5)  # for what should not come
            finally:
                enough.touch()
            assert life.result()[0] == KILLED
        assert len(echo.arrivals) == 2 * 4
        assert mortals.live(house, None)[0] == 0
        assert audit(house).complaints() == []
        assert sent_again(echo)[1] <= 2 * 4
