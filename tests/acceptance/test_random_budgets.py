"""Random jobs under random budgets, killed and gone on with: what they are billed, and what they leave unspent.

The endpoint takes all that it may: prompts up to a token a byte, answers up to the cap, and it bills those too whose
asker is dead or has given up. THOROUGH=1 runs 200 jobs; the figures are printed (`-s`).
"""

from __future__ import annotations

import json
import random
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import median

from endpoint import Endpoint, Place, Said, Seen, ok, until
from thorough import THOROUGH

import runner
from runner.standing import status_of

JOBS = 200 if THOROUGH else 6
ROWS, CAP = 60, 20
INPUT, OUTPUT = 2, 8  #: dollars per million tokens, as `Place.job` prices them


@dataclass
class Story:
    """One job and what became of it."""

    place: Place
    luck: random.Random
    max_usd: Decimal = Decimal(0)
    billed: Decimal = Decimal(0)
    in_flight: int = 1
    kills: int = 0
    starts: int = 0
    code: int = -1
    longest: int = 0  #: bytes of a body without its text
    texts: list[str] = field(default_factory=list)

    def begin(self) -> None:
        luck = self.luck
        self.max_usd = Decimal(luck.randint(5, 300)) / 10_000
        self.in_flight = luck.choice([1, 4, 16])
        self.texts = ["y" * luck.choice([1, 10, 100, 400]) for _ in range(ROWS)]
        rows = (json.dumps({"text": text}) + "\n" for text in self.texts)
        (self.place.root / "rows.jsonl").write_text("".join(rows))
        self.place.job(
            limits={"concurrency": self.in_flight}, retry={"max_backoff_s": 0.01}, timeouts={"attempt_s": 0.5}
        )
        self.place.endpoint.answer = self.answer

    def answer(self, seen: Seen) -> Said:
        size = len(json.dumps(seen.body, separators=(",", ":")))
        self.longest = size - len(seen.text.removeprefix("say "))
        if self.luck.random() < 0.1:
            return Said(500, b"{}")
        prompt = self.luck.choice([size, self.luck.randint(1, size)])
        tokens = self.luck.choice([CAP, self.luck.randint(0, CAP)])
        self.billed += Decimal(prompt * INPUT + tokens * OUTPUT) / 10**6
        late = self.luck.random() < 0.03  # billed, and nobody waits for it any more
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
        return Said(200, ok(usage=usage).body, delay_s=1.0 if late else self.luck.random() * 0.02)

    def run(self) -> None:
        """Some starts that are killed, with a budget that is raised meanwhile, and one that is left alone."""
        for _ in range(self.luck.randint(0, 3)):
            life = self.place.start("run", "job.yaml", *self._budget())
            until(partial(self._has_sent, self.place.sent + self.luck.randint(1, 20)), within_s=1.0)
            with suppress(ProcessLookupError):  # it had ended by itself
                life.signal(self.luck.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            self.kills += life.wait().code < 0
            self.starts += 1
            self.max_usd += self.luck.choice([0, 0, Decimal("0.002")])
        self.code = self.place.run(*self._budget()).code

    def _budget(self) -> tuple[str, str]:
        return "--max-usd", str(self.max_usd)

    def _has_sent(self, enough: int) -> bool:
        return self.place.sent >= enough

    @property
    def left(self) -> Decimal:
        totals = status_of(self.place.run_root).totals
        return self.max_usd - totals.cost_usd - totals.unknown_usd

    @property
    def cheapest(self) -> Decimal:
        """The least that a row which is not final may cost."""
        final = set(runner.read_results(self.place.run_root)["row_index"])
        sizes = [self.longest + len(text) for row, text in enumerate(self.texts) if row not in final]
        return Decimal(min(sizes) * INPUT + CAP * OUTPUT) / 10**6


def test_random_jobs_with_kills_and_resumes_never_pass_their_budget_and_use_it(tmp_path: Path) -> None:
    stories, unused = [], []
    with Endpoint() as endpoint:
        for number in range(JOBS):
            root = tmp_path / str(number)
            root.mkdir()
            story = Story(Place(root, endpoint), random.Random(number))
            story.begin()
            story.run()
            stories.append(story)
            left = story.left
            assert story.code in (0, 1, 3), f"job {number}"
            assert story.billed <= story.max_usd, f"job {number}: {story.billed} of {story.max_usd}"
            assert left >= 0, f"job {number}"
            if story.code == 3:
                unused.append(left - story.cheapest)
                assert story.in_flight < 16 or unused[-1] < 0, f"job {number}: {left} left, all rows were at hand"
    stopped = sum(story.code == 3 for story in stories)
    over = max(story.billed - story.max_usd for story in stories)
    room = [amount for amount in unused if amount >= 0]
    print(
        f"{JOBS} jobs, {sum(story.kills for story in stories)} kills, {stopped} stopped by their budget; "
        f"largest overshoot ${max(over, Decimal(0))}; with room for a row that was not at hand: {len(room)}, "
        f"left beyond it ${max(room, default=0)} at most, ${median(room) if room else 0} in the middle"
    )
