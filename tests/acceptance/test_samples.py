"""`run --sample`: rows drawn at random, sent for real and kept, and what they say about the whole job."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from echo import Echo
from endpoint import KEY, Endpoint, Place, Said, ok, refused, until
from house import House, audit
from house import until as until_seen

import runner

ENVIRON = {"TRIAL_KEY": KEY}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(400)
        place.job(output={"rows_per_part": 4})
        yield place


def asked(place: Place, since: int = 0) -> list[int]:
    """The rows whose requests arrived."""
    return [int(seen.text.removeprefix("say row ")) for seen in place.endpoint.seen[since:]]


def refusing(*rows: int) -> Any:
    texts = {f"say row {row}" for row in rows}
    return lambda seen: refused(400, "Bad.") if seen.text in texts else ok()


def test_a_sample_is_sent_told_of_and_kept(place: Place) -> None:
    done = place.run("--sample", "20")
    first = asked(place)
    assert (done.code, len(first), len(set(first))) == (0, 20, 20)
    assert min(first) < 200 <= max(first)  # from both halves of the input, but for once in half a million draws
    said = done.err.rstrip("\n").split("\n")
    assert "sampled: 20 of 400 rows final (20 ok)" in said
    assert "sample: 20 of 400 rows, drawn at random" in said
    assert "  the whole job costs $0.1120" in said  # every row cost the same
    assert "  not ok: 0 of 20 (95 %: 0 % to 16 % of all rows)" in said
    assert (
        "  answers: 10 tokens in the middle, nine of ten up to 10, the longest 10; the cap is 20, none was cut off"
        in said
    )
    assert said[-1] == "to go on with the other 380 rows: runner run job.yaml"
    partials = list((place.run_root / "results").glob("*.partial.parquet"))
    assert sorted(row for path in partials for row in pq.read_table(path)["row_index"].to_pylist()) == sorted(first)
    told = place.run("--sample", "20", "--max-usd", "0.05").err
    assert "  the whole job costs $0.1120; that is more than the budget of $0.0500\n" in told
    assert place.run().code == 0
    assert sorted(asked(place)) == list(range(400))  # nothing twice
    assert not list((place.run_root / "results").glob("*.partial.parquet"))
    assert [row["row_index"] for row in place.records()] == list(range(400))


def test_the_same_command_tells_again_and_a_larger_sample_draws_more(place: Place) -> None:
    told = place.run("--sample", "20", "--json").json["sample"]
    assert place.run("--sample", "20", "--json").json["sample"] == told
    assert place.sent == 20
    more = place.run("--sample", "50", "--json").json
    assert (place.sent, len(set(asked(place))), more["sample"]["rows"]) == (50, 50, 50)
    assert place.run("--sample", "30", "--json").json["sample"]["rows"] == 30
    assert place.sent == 50


def test_the_json_line_has_every_figure(place: Place) -> None:
    odd = tuple("13579")  # half of the rows: a sample of 60 without one of them is not drawn
    place.endpoint.answer = lambda seen: ok(
        usage={"prompt_tokens": 100, "completion_tokens": len(seen.text), "total_tokens": 100 + len(seen.text)},
        finish="length" if seen.text.endswith(odd) else "stop",
    )
    done = place.run("--sample", "60", "--json")
    said, found = done.json, done.json["sample"]
    cut = sum(row % 2 for row in asked(place))
    assert (done.code, said["exit_code"], said["reason"], said["next"]) == (1, 1, "sampled", "runner run job.yaml")
    assert done.err == ""
    assert found["statuses"] == {"ok": 60 - cut, "truncated": cut}
    assert found["truncated"] == found["not_ok"]
    assert found["not_ok"]["middle"] == pytest.approx(cut / 60)
    mean = sum(100 * 2 + len(f"say row {row}") * 8 for row in asked(place)) / 60 / 1_000_000
    assert found["usd"]["middle"] == pytest.approx(400 * mean)
    assert found["usd"]["low"] < found["usd"]["middle"] < found["usd"]["high"] < 1.02 * found["usd"]["low"]
    seconds = found["seconds"]
    assert 0 <= seconds["low"] <= seconds["middle"] <= seconds["high"] and seconds["middle"] > 0
    assert (found["rows"], found["population"], found["left"], found["in_flight"]) == (60, 400, 340, 4)
    assert found["completion_tokens"] == {"median": 11, "p90": 11, "longest": 11, "cap": 20}
    assert found["unknown_cost_rows"] == 0


@pytest.mark.parametrize(("allowed", "code"), [((), 1), (("--allow-failed", "2"), 1), (("--allow-failed", "22%"), 0)])
def test_more_rows_that_are_not_ok_than_are_allowed_end_in_1(place: Place, allowed: tuple[str, ...], code: int) -> None:
    """Of 19 rows of 20 at least three are bad and at most four, which is 22 % of the sample."""
    place.rows(20)
    place.endpoint.answer = refusing(3, 8, 11, 17)
    done = place.run("--sample", "19", *allowed)
    assert (done.code, place.sent) == (code, 19)
    assert f"not ok: {len({3, 8, 11, 17} & set(asked(place)))} of 19 (95 %: " in done.err


def test_of_a_run_that_has_begun_the_rows_that_are_not_final_are_drawn_from(place: Place) -> None:
    """The quota ends after 200 rows; the sample is of the other 200, and what was spent is part of the whole."""
    place.endpoint.answer = lambda seen: ok() if seen.number < 200 else refused(429, "Quota.", "insufficient_quota")
    assert place.run().code == 3
    place.endpoint.answer = lambda seen: ok()
    before = place.sent
    found = place.run("--sample", "10", "--json").json
    assert len(set(asked(place, before))) == 10
    assert not set(asked(place, before)) & set(asked(place)[:200])
    assert found["sample"]["population"] == 200
    assert Decimal(str(found["sample"]["usd"]["middle"])) == pytest.approx(Decimal("0.112"))
    assert (found["sample"]["left"], found["totals"]["rows"]["ok"]) == (190, 210)


def test_after_anything_else_was_sent_a_sample_is_drawn_anew(place: Place) -> None:
    assert place.run("--sample", "5").code == 0
    place.endpoint.answer = lambda seen: ok() if seen.number < 100 else refused(429, "Quota.", "insufficient_quota")
    assert place.run().code == 3
    place.endpoint.answer = lambda seen: ok()
    before = place.sent
    assert place.run("--sample", "5", "--json").json["sample"]["population"] == 300
    assert len(set(asked(place, before)) - set(asked(place)[:100])) == 5


def test_a_sample_larger_than_the_rest_is_the_rest(place: Place) -> None:
    place.rows(6)
    done = place.run("--sample", "20")
    assert (done.code, sorted(asked(place))) == (0, list(range(6)))
    assert "finished: 6 of 6 rows final (6 ok)" in done.err
    assert "the whole job costs $0.0017\n" in done.err
    assert (place.run_root / "manifest.json").exists()
    assert place.run("--sample", "20").code == 0
    assert place.sent == 6


def test_a_changed_prompt_is_tried_on_the_same_rows(place: Place) -> None:
    assert place.run("--sample", "8").code == 0
    first = set(asked(place))
    place.job(output={"rows_per_part": 4}, request={"messages": [{"role": "user", "content": "now say {{ text }}"}]})
    assert place.run("--sample", "8").code == 2
    assert place.run("--sample", "8", "--accept-changes").code == 0
    assert {int(seen.text.removeprefix("now say row ")) for seen in place.endpoint.seen[8:]} == first
    assert place.sent == 16


def test_rows_that_failed_are_asked_again_by_retry_and_are_rows_of_the_sample_still(place: Place) -> None:
    place.endpoint.answer = lambda seen: refused(400, "Bad.")
    assert place.run("--sample", "5").code == 1
    place.endpoint.answer = lambda seen: ok()
    rows = asked(place)
    done = place.run("--sample", "5", "--json")  # final is final
    assert (done.code, place.sent, done.json["sample"]["statuses"]) == (1, 5, {"failed": 5})
    assert done.json["sample"]["usd"] == {"low": 0.0, "middle": 0.0, "high": 0.0}
    assert place.start("retry", "job.yaml").wait().code == 0
    assert set(rows) <= set(asked(place, 5))


def test_quiet_says_nothing_and_simulated_costs_nothing(place: Place) -> None:
    place.job(output={"rows_per_part": 4}, request={"max_completion_tokens": 500})
    done = place.run("--sample", "3", "-q", "--simulate")
    assert (done.code, done.out, done.err, place.sent) == (0, "", "", 0)
    journals = (place.root / "runs" / "trial.simulated" / "journal").glob("*.jsonl")
    assert sum(path.read_bytes().count(b'"line":"record"') for path in journals) == 3


def test_a_sample_that_is_interrupted_says_how_to_go_on_with_it(place: Place) -> None:
    log = place.run_root / "run.log"
    place.endpoint.answer = lambda seen: Said(
        200, ok().body, once=lambda: seen.number < 12 or "stopping: " in log.read_text(encoding="utf-8")
    )
    life = place.start("run", "job.yaml", "--sample", "30", "--json")
    assert until(lambda: place.sent == 16)  # four are on the wire
    life.signal(signal.SIGINT)
    done = life.wait()
    assert (done.code, done.json["reason"]) == (130, "interrupted")
    assert done.json["next"] == "runner run job.yaml --sample 30"
    assert "sample" not in done.json
    assert place.sent == 16
    place.endpoint.answer = lambda seen: ok()
    assert place.run("--sample", "30").code == 0
    assert place.sent == len(set(asked(place))) == 30


def test_from_python_a_result_has_its_sample(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.root)
    result = runner.run("job.yaml", sample=10, environ=ENVIRON, quiet=True)
    assert result.ok and result.sample is not None
    assert (result.sample.rows, result.sample.population, result.totals.settled) == (10, 400, 10)
    assert result.sample.usd is not None and result.sample.usd.middle == pytest.approx(0.112)
    assert len(result.results()) == 10
    whole = runner.run("job.yaml", environ=ENVIRON, quiet=True)
    assert whole.sample is None and whole.totals.settled == place.sent == 400


@pytest.mark.parametrize("size", ["0", "-3", "many"])
def test_a_size_that_is_none_is_2(place: Place, size: str) -> None:
    done = place.run("--sample", size)
    assert (done.code, place.sent) == (2, 0)
    assert "--sample" in done.err


def test_a_sample_over_more_ranges_than_may_be_open_survives_kills(tmp_path: Path) -> None:
    """150 rows drawn from 200 ranges of two: 64 may be open at a time. Killed twice, none is asked twice for
    nothing, and the whole run ends as any other."""
    with Echo(latency_s=0.02) as echo:
        house = House(tmp_path / "house", echo, rows=400, rows_per_part=2, concurrency=8)
        for kill in range(2):
            life = house.start("--sample", "150")
            reached = 40 * (kill + 1)
            assert until_seen(lambda reached=reached: len(echo.arrivals) >= reached)
            life.kill()
        life = house.start("--sample", "150", "-v")
        assert life.wait() == 0, life.said()
        drawn = {arrival.row for arrival in echo.arrivals}
        assert len(drawn) == 150
        assert len(echo.arrivals) <= 150 + 2 * 2 * 8  # the promise: at most twice the concurrency a kill
        assert "sample: 150 of 400 rows, drawn at random" in life.said()
        ranges = {row // 2 for row in drawn}
        assert len(ranges) > 64
        assert len(house.journals()) + len(house.parts()) >= len(ranges)
        house.finish()
        story = audit(house)
        assert (story.lost, story.doubled, story.strangers, story.unbilled, story.invented) == ([], [], [], [], [])
        assert all(arrival.row not in drawn for arrival in echo.arrivals if arrival.life == 3)
