"""What each provider takes, on the wire: one job over many models, refusals before anything is sent, settings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Place

MODELS = ["gpt-4.1-mini", "o4-mini", "anthropic/claude-sonnet-4-5", "google/gemini-2.5-flash", "llama-3.3-70b"]
CLAUDE = "claude-sonnet-4-5"
ASKED: dict[str, Any] = {
    "temperature": 1.5,
    "n": 2,
    "stop": ["END"],
    "logprobs": True,
    "top_logprobs": 2,
    "reasoning_effort": "low",
    "max_completion_tokens": 20,
}
MESSAGES = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "say {{ text }}"}]
#: What arrives beside model, messages and stop.
TAKEN: dict[str, dict[str, Any]] = {
    "gpt-4.1-mini": {name: value for name, value in ASKED.items() if name != "reasoning_effort"},
    "o4-mini": {"n": 2, "reasoning_effort": "low", "max_completion_tokens": 20},
    "anthropic/claude-sonnet-4-5": {"stop": ["END"], "max_tokens": 20},
    "google/gemini-2.5-flash": {"temperature": 1.5, "n": 2, "stop": ["END"], "max_tokens": 20},
    "llama-3.3-70b": ASKED,
}
OLD_ROLES = ("anthropic/claude-sonnet-4-5", "google/gemini-2.5-flash")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        yield Place(tmp_path, endpoint)


def rows(place: Place, models: list[str], each: int = 1) -> None:
    lines = ({"text": f"row {n}", "llm": model} for n, model in enumerate(models * each))
    (place.root / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def job(place: Place, *, dialect: str | None = None, on_unsupported: str | None = None, **request: Any) -> None:
    endpoint = {"dialect": dialect, "on_unsupported": on_unsupported}
    request = {"model": "{{ llm }}", "messages": MESSAGES, "max_completion_tokens": None, **request}
    place.job(request=request, endpoint=endpoint, pricing={"m-1": None})


def test_one_job_over_many_models_sends_each_what_it_takes(place: Place) -> None:
    rows(place, MODELS, each=4)
    job(place, on_unsupported="drop", **ASKED)
    done = place.run()
    assert done.code == 0, done.err
    assert Counter(seen.body["model"] for seen in place.endpoint.seen) == dict.fromkeys(MODELS, 4)
    for seen in place.endpoint.seen:
        model, (guide, _) = seen.body.pop("model"), seen.body.pop("messages")
        assert seen.body == TAKEN[model]
        assert guide == {"role": "system" if model in OLD_ROLES else "developer", "content": "be brief"}
    notices = [line for line in done.err.split("\n") if line.startswith("notice: ")]
    assert len(notices) == len(set(notices))
    assert "notice: temperature: left out, Claude takes 0–1" in notices
    assert "notice: max_completion_tokens: sent as max_tokens to Gemini" in notices
    assert "notice: messages: developer is sent as system to Claude" in notices
    assert "notice: temperature: left out, not taken by OpenAI's o3 and o4-mini" in notices
    told = place.call("show", "runs/trial", "2", "--json").json
    assert told["as_sent"] is True
    assert told["request"] == {
        "model": MODELS[2],
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "say row 2"}],
        "stop": ["END"],
        "max_tokens": 20,
    }


def test_without_drop_the_rows_of_other_models_fail_unsent(place: Place) -> None:
    rows(place, MODELS[:4])
    job(place, n=2)
    done = place.run()
    assert done.code == 1
    assert sorted(seen.body["model"] for seen in place.endpoint.seen) == sorted({*MODELS[:4]} - {MODELS[2]})
    failed = place.records()[2]
    assert (failed["status"], failed["error_kind"], failed["attempts"]) == ("failed", "INPUT", [])
    assert failed["error"] == "n: Claude takes only 1; give 1, or endpoint.on_unsupported: drop leaves it out"


@pytest.mark.parametrize("command", ["check", "run", "render"])
def test_a_parameter_outside_the_table_is_told_with_its_line_before_anything_is_sent(
    place: Place, command: str
) -> None:
    rows(place, MODELS)
    job(place, model=CLAUDE, n=2, temperature=1.5, response_format={"type": "json_object"}, logprobs=True)
    done = place.call(command, "job.yaml")
    assert (done.code, place.endpoint.connections, place.run_root.exists()) == (2, 0, False)
    text = (place.root / "job.yaml").read_text(encoding="utf-8").split("\n")
    found, lines = {}, []
    for said in done.errors:
        where, _, sentence = said.partition(": request.")
        lines.append(int(where.removeprefix("job.yaml:")))
        assert sentence.endswith("endpoint.on_unsupported: drop leaves it out")
        name = sentence.split(":")[0]
        found[name] = sentence
        assert f'"{name}"' in text[lines[-1] - 1]
    assert lines == sorted(lines)  # as they stand in the file
    assert sorted(found) == ["logprobs", "n", "response_format", "temperature"]
    assert all("Claude" in sentence for sentence in found.values())


def test_a_dialect_of_none_sends_as_written(place: Place) -> None:
    rows(place, [CLAUDE])
    job(place, dialect="none", **ASKED)
    done = place.run()
    assert (done.code, "notice" in done.err) == (0, False)
    assert {name: place.endpoint.seen[0].body[name] for name in ASKED} == ASKED
    assert place.endpoint.seen[0].body["messages"][0]["role"] == "developer"


def test_a_dialect_that_is_set_holds_for_a_deployments_name(place: Place) -> None:
    rows(place, ["our-own"])
    job(place, dialect="gemini", max_completion_tokens=9, n=8)
    assert place.run().code == 0
    assert place.endpoint.seen[0].body["max_tokens"] == 9
    job(place, dialect="gemini", n=9)
    assert place.call("check", "job.yaml").code == 0  # the model is a template: the row says
    job(place, dialect="gemini", n=9, model="our-own")
    assert "Gemini takes 1–8" in place.call("check", "job.yaml").errors[0]


def test_a_value_that_a_variable_gave_is_judged_with_its_line(place: Place) -> None:
    rows(place, ["llama"])
    place.job(vars={"t": 3}, request={"temperature": "{{ t }}"})
    (said,) = place.call("check", "job.yaml").errors
    assert said.endswith("request.temperature: must be from 0 to 2")


def test_check_and_render_tell_what_would_be_sent(place: Place) -> None:
    rows(place, [CLAUDE, "o3", "gpt-4.1"])
    system = [{"role": "system", "content": "x"}, *MESSAGES[1:]]
    request = {"messages": system, "temperature": 0.5, "top_p": 0.5, "seed": 3, "max_tokens": 9, "logprobs": True}
    job(place, on_unsupported="drop", **request)
    said = place.call("check", "job.yaml").out.split("\n")
    assert "notice     logprobs: left out, Claude does not take it" in said
    assert "notice     max_tokens: sent as max_completion_tokens to OpenAI's o3 and o4-mini" in said
    assert "notice     temperature: left out, not taken by OpenAI's o3 and o4-mini" in said
    assert "warning    top_p: given together with temperature; change one of them, not both" in said
    assert "warning    seed: Claude reads over it; leave it out" in said
    assert "advice     messages: OpenAI's models from o1 on know `developer` in place of `system`" in said
    assert not [line for line in said if "not capped" in line]
    bodies = [json.loads(line)["body"] for line in place.call("render", "job.yaml").out.strip().split("\n")]
    assert [sorted(body.keys() - {"model", "messages", "seed"}) for body in bodies] == [
        ["max_tokens", "temperature", "top_p"],
        ["max_completion_tokens"],
        ["logprobs", "max_tokens", "temperature", "top_p"],
    ]
    job(place, messages=MESSAGES[1:])
    assert [line for line in place.call("check", "job.yaml").out.split("\n") if "not capped" in line]
    assert place.endpoint.connections == 0


def test_notices_are_silent_with_q_and_in_the_log(place: Place) -> None:
    rows(place, [CLAUDE])
    job(place, model=CLAUDE, max_completion_tokens=5)
    done = place.run("-q")
    assert (done.code, done.err) == (0, "")
    assert "notice: max_completion_tokens: sent as max_tokens to Claude" in (place.run_root / "run.log").read_text()


def test_other_settings_send_nothing_again(place: Place) -> None:
    rows(place, MODELS[:4])
    job(place, on_unsupported="drop", n=2, max_completion_tokens=5)
    assert place.run().code == 0
    before = place.sent
    for settings in ({}, {"dialect": "none"}, {"dialect": "claude"}, {"dialect": "openai", "on_unsupported": "drop"}):
        job(place, **settings, n=2, max_completion_tokens=5)
        assert (place.run().code, place.sent) == (0, before)
    rows(place, [*MODELS[:4], "llama"])
    job(place, n=2, max_completion_tokens=5)
    done = place.run()
    assert (done.code, place.sent) == (0, before + 1), done.err
    assert place.call("show", "runs/trial", "2", "--json").json["outcome"]["status"] == "ok"


def test_rows_that_failed_go_out_when_they_are_asked_again_with_drop(place: Place) -> None:
    rows(place, MODELS[:3])
    job(place, n=2)
    assert (place.run().code, place.sent) == (1, 2)
    job(place, on_unsupported="drop", n=2)
    assert (place.run().code, place.sent) == (1, 2)
    assert place.call("retry", "job.yaml").code == 0
    assert place.sent == 3
    assert "n" not in place.endpoint.seen[-1].body
