"""A run that is killed again and again, at instants that a seed draws, until it is let finish.

Rule: an aim is a state of the run that can be seen from outside (in `/proc`, in its directory, at the endpoint); the
kill follows it by a random moment, and is counted under what was seen at that very moment, not under the intention.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from house import House, Life, open_files, until

AIM_S = 20.0  #: a state that does not come is not waited for …
SPENT_S = 0.3  #: … and comes no more when the life has used its ration up


@dataclass(frozen=True)
class Aim:
    """Kill `after_s` at most behind the instant when `seen` becomes true."""

    name: str
    seen: Callable[[House, Life], object]
    after_s: float


def _surveying(house: House, life: Life) -> bool:
    return not _traffic(house, life, 1) and str(house.input) in open_files(life.pid)


def _holding(house: House, life: Life) -> bool:
    """It has the lock: from here to the first request it reads what the last one left."""
    try:
        owner = orjson.loads((house.run() / "lock").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    return bool(owner["pid"] == life.pid)


def _sealing(house: House) -> bool:
    """A range whose rows are all final and that is not a part yet, or still a journal too."""
    if _crossing(house) or any((house.run() / "journal").glob("*.tmp")):
        return True
    return any(_records(path) >= house.rows_per_part for path in house.journals())


def _records(journal: Path) -> int:
    try:
        return journal.read_bytes().count(b'{"line":"record"')
    except FileNotFoundError:
        return 0


def _crossing(house: House) -> bool:
    numbers = {path.stem for path in house.journals()}
    return any(path.stem.removeprefix("part-") in numbers for path in house.parts())


def _sealed(house: House, life: Life) -> bool:
    return len(house.parts()) > life.parts_before


def _traffic(house: House, life: Life, count: int) -> bool:
    return len(house.echo.arrivals) - life.sent_before >= count


SURVEY = Aim("survey", _surveying, 0.1)
REPLAY = Aim("replay", _holding, 0.06)
SEALING = Aim("sealing", lambda house, life: _sealing(house) and _holding(house, life), 0.1)
SEALED = Aim("sealed", _sealed, 0.004)
FIRST = Aim("first requests", lambda house, life: _traffic(house, life, 1), 0.01)
TRAFFIC = Aim("traffic", lambda house, life: _traffic(house, life, 20), 0.15)
BLIND = Aim("blind", lambda house, life: True, 1.5)


@dataclass
class Story:
    """What the kills of one run came to."""

    house: House
    phases: Counter[str] = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        return self.phases.total()


def tell(house: House, aims: list[Aim], luck: random.Random, watched: Callable[[], object]) -> Story:
    """Start, kill, start again …, one kill for each aim; then, when it was watched enough, let it finish."""
    story = Story(house)
    for number, aim in enumerate(aims):
        if aim is SURVEY:
            os.utime(house.input)  # a survey is believed while size and time stand
        life = house.start()
        until(
            lambda life=life, aim=aim: life.ended or aim.seen(house, life) or _spent(house),
            within_s=AIM_S,
            every_s=0.002,
        )
        delay_s = luck.uniform(0.0, aim.after_s)
        time.sleep(delay_s if number % 2 else 0.0)  # what is short on a fast machine is hit by those that come at once
        phase = _phase(house, life)
        if life.ended:
            break
        life.kill()
        story.phases["sealing" if phase == "traffic" and _sealing(house) else phase] += 1
        time.sleep(0.05)  # what had left reaches the endpoint under this life's number
    watched()
    house.finish()
    return story


def _spent(house: House) -> bool:
    spent_at_s = house.echo.spent_at_s
    return spent_at_s is not None and time.monotonic() - spent_at_s > SPENT_S


def _phase(house: House, life: Life) -> str:
    """What it was doing, as far as one can see before it is killed."""
    if _traffic(house, life, 1):
        return "traffic"
    if _surveying(house, life):
        return "survey"
    return "replay" if _holding(house, life) else "start"
