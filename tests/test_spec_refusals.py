"""What a job file may not ask for: machinery that is not built, secrets, endpoints that cannot be."""

from __future__ import annotations

import pytest
from small_job import SMALL, mistakes, read_no_file

from runner.spec import parse
from runner.spec.notbuilt import NOT_BUILT

REFUSED = [
    ("matrix: {model: [a, b]}", "matrix"),
    ("request: {model: [a, b]}", "request.model"),
    ("request: {model: {matrix: [a, b]}}", "request.model"),
    ("engine: batch", "engine"),
    ("engine: ray", "engine"),
]


@pytest.mark.parametrize(("line", "path"), REFUSED)
def test_what_is_not_built_is_refused_in_words(line: str, path: str) -> None:
    others = {"input": "input: {path: a}\n", "request": "request: {model: m, messages: [{role: user, content: x}]}\n"}
    text = f"{line}\n" + "".join(lines for section, lines in others.items() if not line.startswith(section))
    (said,) = [said for said in mistakes(text) if not said.endswith("is required")]
    assert said.startswith(f"jobs/x.yaml:1: {path}: ")
    assert said.removeprefix(f"jobs/x.yaml:1: {path}: ") in {sentence for _, _, sentence in NOT_BUILT}
    assert "built yet" in said


def test_every_sentence_of_the_not_built_table_is_met_by_a_case() -> None:
    told = "\n".join(said for line, _ in REFUSED for said in mistakes(f"{line}\n"))
    assert [sentence for _, _, sentence in NOT_BUILT if sentence not in told] == []


@pytest.mark.parametrize("line", ["request:\n  stream: false\n  stream_options: null\n", "engine: local\n"])
def test_the_value_that_is_built_is_taken(line: str) -> None:
    text = SMALL.replace("request:\n", line, 1) if line.startswith("request") else SMALL + line
    assert parse(text, "jobs/x.yaml", read_file=read_no_file).engine == "local"


SECRET = "sk-proj-abcdefgh12345678"
WITH_SECRET = [
    (f"api_key: {SECRET}", "api_key", "api_key_env"),
    (f"apikey: {SECRET}", "apikey", "api_key_env"),
    ("token: abc", "token", "api_key_env"),
    (f"anything: {SECRET}", "anything", "api_key_env"),
    (f"api_key_env: {SECRET}", "api_key_env", "not the key itself"),
    (f"api_key_file: {SECRET}", "api_key_file", "api_key_env"),
    (f"base_url: https://user:{SECRET}@x.com/v1", "base_url", "api_key_env"),
    ("base_url: https://user:hunter22@x.com/v1", "base_url", "must not hold a user"),
    (f"base_url: https://x.com/v1?key={SECRET}", "base_url", "api_key_env"),
    ("base_url: https://x.com/v1?key=hunter22", "base_url", "query"),
    (f"headers: {{Authorization: Bearer {SECRET}}}", "headers.Authorization", "{env: NAME}"),
    ("headers: {authorization: hunter22}", "headers.authorization", "{env: NAME}"),
    ("headers: {X-Api-Key: hunter22}", "headers.X-Api-Key", "{env: NAME}"),
    ("headers: {Cookie: hunter22}", "headers.Cookie", "{env: NAME}"),
    (f"headers: {{X-Other: {SECRET}}}", "headers.X-Other", "{env: NAME}"),
    (f"headers: {{X-Other: {{env: {SECRET}}}}}", "headers.X-Other", "not the key itself"),
    (f"headers: {{X-Other: [{SECRET}]}}", "headers.X-Other", "{env: NAME}"),
    (f"headers: {SECRET}", "headers", "must be a mapping"),
]


@pytest.mark.parametrize(("line", "path", "said"), WITH_SECRET)
def test_a_literal_secret_is_refused_and_never_repeated(line: str, path: str, said: str) -> None:
    found = mistakes(f"{SMALL}endpoint:\n  {line}\n")
    assert len(found) == 1
    assert found[0].startswith(f"jobs/x.yaml:7: endpoint.{path}: ")
    assert said in found[0]
    assert "hunter22" not in found[0]
    assert SECRET not in found[0]
    assert "abcdefgh" not in found[0]


def test_a_key_in_the_wrong_section_is_refused_too() -> None:
    (said,) = mistakes(f"{SMALL}api_key: {SECRET}\n")
    assert "api_key_env" in said
    assert SECRET not in said


ENDPOINT = [
    ("base_url: ftp://x/v1", "base_url: must be http://… or https://… with a host"),
    ("base_url: https://", "base_url: must be http://… or https://… with a host"),
    ("base_url: 'http://[::1'", "base_url: must be http://… or https://… with a host"),
    ("base_url: http://x:99999/v1", "base_url: must be http://… or https://… with a host"),
    ("base_url: api.openai.com/v1", "base_url: must be http://… or https://… with a host"),
    ("base_url: 'http://x/a b'", "base_url: must be a URL without spaces or special characters"),
    ("base_url: 'http://x/v1#'", "base_url: must not have a query or a fragment"),
    ("base_url: http://x/v1/chat/completions", "base_url: must end before /chat/completions, which is added"),
    ("base_url: 3", "base_url: must be text, not a number"),
    ("{api_key_env: A, api_key_file: b}", "api_key_file: give either api_key_env or api_key_file"),
    ("api_key_evn: A", "api_key_evn: unknown key; did you mean api_key_env?"),
    ("headers: {a b: c}", "headers.a b: is no header name"),
    ("headers: {'': c}", "headers.: is no header name"),
    ("headers: {X-A: 'a\n    \n    b'}", "headers.X-A: must be printable ASCII on one line"),
    ("headers: {X-A: é}", "headers.X-A: must be printable ASCII on one line"),
    ("headers: {X-A: 3}", "headers.X-A: must be text or {env: NAME}"),
    ("headers: {X-A: {env: A, b: c}}", "headers.X-A: must be text or {env: NAME}"),
    ("headers: {X-A: a, x-a: b}", "headers.x-a: the same header as X-A"),
    *(
        (f"headers: {{{name}: x}}", f"headers.{name}: this header is written by the runner itself; leave it out")
        for name in ("Content-Type", "host", "content-length", "Accept-Encoding")
    ),
]


@pytest.mark.parametrize(("line", "said"), ENDPOINT)
def test_an_endpoint_is_judged_in_plain_words(line: str, said: str) -> None:
    written = line if line.startswith("{") else f"{{{line}}}"
    assert mistakes(f"{SMALL}endpoint: {written}\n") == [f"jobs/x.yaml:6: endpoint.{said}"]
