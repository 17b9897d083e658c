from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runner.errors import UsageError
from runner.simulator import Child, SimulatorOptions
from runner.simulator.child import SimulatorError, _announced, scrubbed
from runner.simulator.server import serve

psutil: Any = pytest.importorskip("psutil")
ROOT = Path(__file__).parent.parent
ASK: dict[str, Any] = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Label this ticket."}]}
KEY = {"authorization": "Bearer sk-anything"}


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with Child(SimulatorOptions(latency_ms=0)) as child:
        yield child.base_url


def request(method: str, url: str, **options: Any) -> httpx.Response:
    # Without TLS to verify, httpx need not read the system's certificates: 20 ms a call.
    return httpx.request(method, url, verify=False, trust_env=False, timeout=60, **options)


def post(base_url: str, body: Any = ASK, **options: Any) -> httpx.Response:
    return request("POST", f"{base_url}/chat/completions", json=body, headers=KEY, **options)


def stats_of(base_url: str) -> Any:
    return request("GET", base_url.removesuffix("/v1") + "/stats").json()


def test_a_chat_completion_is_answered_in_the_shape_of_the_wire(base_url: str) -> None:
    reply = post(base_url)
    body = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert reply.headers["x-request-id"].startswith("req-simulated-")
    assert (body["object"], body["model"], body["system_fingerprint"]) == (
        "chat.completion",
        "simulated-gpt-4.1-mini",
        "simulator",
    )
    message = body["choices"][0]["message"]
    assert (message["role"], message["refusal"], body["choices"][0]["finish_reason"]) == ("assistant", None, "stop")
    assert body["usage"]["completion_tokens"] == -(-len(message["content"]) // 4)
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


def test_the_same_body_is_answered_with_the_same_choices(base_url: str) -> None:
    first, second = post(base_url).json(), post(base_url).json()
    assert first["choices"] == second["choices"]
    assert first["id"] != second["id"]
    assert post(base_url, ASK | {"user": "another"}).json()["choices"] != first["choices"]


def test_another_seed_gives_another_answer(base_url: str) -> None:
    with Child(SimulatorOptions(latency_ms=0, seed=1)) as child:
        assert post(child.base_url).json()["choices"] != post(base_url).json()["choices"]


def test_a_prefix_that_was_seen_is_sometimes_cached(base_url: str) -> None:
    system = {"role": "system", "content": "You label tickets. " * 20}
    cached = []
    for n in range(20):
        usage = post(base_url, ASK | {"messages": [system, {"role": "user", "content": f"{n}"}]}).json()["usage"]
        cached.append(usage["prompt_tokens_details"]["cached_tokens"])
        assert cached[-1] < usage["prompt_tokens"]
    assert cached[0] == 0
    assert set(cached) == {0, 96}


@pytest.mark.parametrize(
    ("method", "path", "content", "headers", "status", "param", "code"),
    [
        ("POST", "/chat/completions", json.dumps(ASK), {}, 401, None, None),
        ("POST", "/chat/completions", json.dumps(ASK), {"authorization": "Basic eA=="}, 401, None, None),
        ("GET", "/models", None, {}, 401, None, None),
        ("POST", "/chat/completions", '{"model": ', KEY, 400, None, None),
        ("POST", "/chat/completions", "[]", KEY, 400, None, None),
        ("POST", "/chat/completions", json.dumps(ASK | {"stream": 2}), KEY, 400, "stream", None),
        ("GET", "/chat/completions", None, KEY, 405, None, "method_not_supported"),
        ("POST", "/completions", json.dumps(ASK), KEY, 404, None, "unknown_url"),
    ],
)
def test_what_is_not_answered_is_refused_in_openai_s_shape(
    base_url: str,
    method: str,
    path: str,
    content: str | None,
    headers: dict[str, str],
    status: int,
    param: str | None,
    code: str | None,
) -> None:
    reply = request(method, base_url + path, content=content, headers=headers)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (status, param, code)
    assert set(error) == {"message", "type", "param", "code"}


def test_a_schema_that_is_none_is_refused(base_url: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "text"}}}
    reply = post(base_url, ASK | {"response_format": wanted})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_schema")


def test_models_are_listed(base_url: str) -> None:
    listed = request("GET", f"{base_url}/models", headers=KEY).json()
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["simulated"])


def test_a_key_can_be_left_out_or_refused() -> None:
    with Child(SimulatorOptions(latency_ms=0, no_auth=True)) as child:
        assert request("POST", f"{child.base_url}/chat/completions", json=ASK).status_code == 200
    with Child(SimulatorOptions(latency_ms=0, reject_key=True)) as child:
        reply = post(child.base_url)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")


def test_limits_show_in_the_headers_and_then_in_a_429() -> None:
    with Child(SimulatorOptions(latency_ms=0, rpm=2, tpm=100_000)) as child:
        started = time.monotonic()
        first = post(child.base_url)
        second, third = post(child.base_url), post(child.base_url)
        seconds = time.monotonic() - started
    assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == ("2", "1")
    assert int(second.headers["x-ratelimit-remaining-tokens"]) > 99_000
    assert third.status_code == 429
    assert third.json()["error"]["code"] == "rate_limit_exceeded"
    assert 29.9 - seconds <= int(third.headers["retry-after"]) <= 30
    assert third.headers["x-ratelimit-remaining-requests"] == "0"


FAULTS = [
    ("rate_429", 429, "rate_limit_exceeded"),
    ("rate_500", 500, None),
    ("rate_503", 503, "server_is_overloaded"),
]


@pytest.mark.parametrize(("rate", "status", "code"), FAULTS)
def test_faults_by_rate_answer_with_their_status(rate: str, status: int, code: str | None) -> None:
    rates: dict[str, Any] = {rate: 1.0}
    with Child(SimulatorOptions(latency_ms=0, **rates)) as child:
        reply = post(child.base_url)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert ("retry-after-ms" in reply.headers) == (status == 429)


def test_a_reset_is_a_reset_and_the_server_goes_on() -> None:
    with Child(SimulatorOptions(latency_ms=0, rate_reset=1.0)) as child:
        for _ in range(3):
            with pytest.raises(ConnectionResetError):
                raw_post(child.base_url)
        assert stats_of(child.base_url)["answers"] == {"reset": 3}


def test_a_cut_answer_promises_more_than_it_gives() -> None:
    with Child(SimulatorOptions(latency_ms=0, rate_cut=1.0)) as child:
        head, _, body = raw_post(child.base_url).partition(b"\r\n\r\n")
        with pytest.raises(httpx.RemoteProtocolError):
            post(child.base_url)
    promised = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    assert b"200 OK" in head
    assert len(body) == promised // 2


def raw_post(base_url: str) -> bytes:
    """Everything that comes back until the connection ends."""
    with connected(base_url) as peer:
        peer.sendall(asked())
        return b"".join(iter(lambda: peer.recv(65536), b""))


def connected(base_url: str) -> socket.socket:
    url = httpx.URL(base_url)
    return socket.create_connection((url.host, url.port or 0), timeout=60)


def asked() -> bytes:
    """A whole request."""
    body = json.dumps(ASK).encode()
    lines = ("POST /v1/chat/completions HTTP/1.1", "host: x", "authorization: Bearer x", f"content-length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


def test_broken_json_comes_with_a_200() -> None:
    with Child(SimulatorOptions(latency_ms=0, rate_bad_json=1.0)) as child:
        reply = post(child.base_url)
    assert reply.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        reply.json()


def test_a_refusal_is_an_answer_without_content() -> None:
    with Child(SimulatorOptions(latency_ms=0, rate_refusal=1.0)) as child:
        message = post(child.base_url).json()["choices"][0]["message"]
    assert (message["content"], bool(message["refusal"])) == (None, True)


def test_an_invalid_answer_hides_its_json_in_prose() -> None:
    with Child(SimulatorOptions(latency_ms=0, rate_invalid=1.0)) as child:
        body = ASK | {"response_format": {"type": "json_object"}}
        content = post(child.base_url, body).json()["choices"][0]["message"]["content"]
    assert content.startswith("Sure! ")


def test_slow_answers_take_ten_times_as_long() -> None:
    with Child(SimulatorOptions(latency_ms=30, sigma=0, rate_slow=1.0)) as child:
        started = time.monotonic()
        post(child.base_url)
    assert 0.3 <= time.monotonic() - started < 20


def test_the_log_and_the_counters_tell_every_request(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with Child(SimulatorOptions(latency_ms=0, rate_500=0.5, log=str(log))) as child:
        replies = [post(child.base_url) for _ in range(20)]
        stats = stats_of(child.base_url)
        events = [json.loads(line) for line in log.read_text().split("\n")[:-1]]  # whole while the server runs
    assert [event["event"] for event in events] == ["request", "answer"] * 20
    assert {event["hash"] for event in events} == {hashlib.blake2b(replies[0].request.content).hexdigest()}
    answers = [event for event in events if event["event"] == "answer"]
    assert [event["status"] for event in answers] == [reply.status_code for reply in replies]
    assert [event["id"] for event in answers] == [reply.headers["x-request-id"] for reply in replies]
    assert stats["answers"] == Counter(str(reply.status_code) for reply in replies)
    assert len(stats["answers"]) == 2
    assert (stats["requests"], stats["in_flight"], stats["max_in_flight"]) == (20, 0, 1)


def test_a_client_that_did_not_wait_is_logged_as_gone(tmp_path: Path) -> None:
    for latency_ms in (150, 1_500, 15_000):  # the server may have answered before one that is stalled leaves
        log = tmp_path / f"{latency_ms}.jsonl"
        with Child(SimulatorOptions(latency_ms=latency_ms, sigma=0, log=str(log))) as child:
            with connected(child.base_url) as peer:
                peer.sendall(asked())
                assert len(lines_within(log, 1)) == 1
            statuses = [json.loads(line).get("status") for line in lines_within(log, 2)]
        if statuses == [None, 499]:
            return
    pytest.fail(f"{statuses}")


def test_a_client_that_leaves_while_it_sends_is_nothing_to_report(capfd: pytest.CaptureFixture[str]) -> None:
    with Child(SimulatorOptions(latency_ms=0)) as child:
        with connected(child.base_url) as peer:
            peer.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        assert post(child.base_url).status_code == 200
        assert stats_of(child.base_url)["requests"] == 1
    assert capfd.readouterr().err == ""


def test_ctrl_c_ends_a_server_in_the_foreground() -> None:
    words = [sys.executable, "-m", "runner.simulator"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["base_url"].startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


def lines_within(path: Path, count: int) -> list[str]:
    for _ in range(6000):
        lines = path.read_text().split("\n")[:-1]
        if len(lines) >= count:
            return lines
        time.sleep(0.01)
    raise AssertionError(f"{path} has {len(lines)} lines")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}: "):
            serve(SimulatorOptions(port=port), print)
        with pytest.raises(SimulatorError, match="ended with status 2"):
            Child(SimulatorOptions(port=port)).__enter__()


def test_a_child_that_takes_its_time_to_end_is_told_as_one_that_did_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = [sys.executable, "-c", "import os, time; os.close(1); time.sleep(60)"]
    with subprocess.Popen(quiet, stdout=subprocess.PIPE) as process:
        monkeypatch.setattr("runner.simulator.child.START_S", 0.1)
        with pytest.raises(SimulatorError, match="the simulator ended before it started"):
            _announced(process, 60)
        process.kill()


def test_the_child_ends_with_its_block() -> None:
    with Child(SimulatorOptions()) as child:
        assert psutil.pid_exists(child.pid)
    assert not psutil.pid_exists(child.pid)


def test_the_child_ends_when_its_parent_is_killed() -> None:
    parent = textwrap.dedent("""
        import time
        from runner.simulator import Child, SimulatorOptions
        with Child(SimulatorOptions()) as child:
            print(child.pid, child.base_url, flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        pid, base_url = process.stdout.readline().split()
        assert request("GET", f"{base_url}/models", headers=KEY).status_code == 200
        child = psutil.Process(int(pid))
        process.kill()
    assert ended(child)


def ended(process: Any) -> bool:
    """Within a minute; its number may stay until somebody asks what became of it."""
    for _ in range(3000):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_ctrl_c_in_the_terminal_does_not_reach_the_child() -> None:
    with Child(SimulatorOptions()) as child:
        assert os.getsid(child.pid) == child.pid != os.getsid(0)


def test_sigterm_ends_the_child() -> None:
    with Child(SimulatorOptions()) as child:
        os.kill(child.pid, signal.SIGTERM)
        assert ended(psutil.Process(child.pid))


def test_the_child_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"COMETAPI_KEY": "sk-1", "PYTHON_API_KEY": "sk-2", "AWS_SECRET_ACCESS_KEY": "sk-3", "HF_TOKEN": "sk-4"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with Child(SimulatorOptions()) as child:
        seen = psutil.Process(child.pid).environ()
        words = psutil.Process(child.pid).cmdline()
    assert not [value for value in seen.values() if value.startswith("sk-")]
    assert seen["PATH"] == os.environ["PATH"]
    assert not [word for word in words if "sk-" in word]


def test_only_harmless_names_pass() -> None:
    environ = {"PATH": "/bin", "LC_ALL": "C", "PYTHONHASHSEED": "0", "OPENAI_API_KEY": "x", "EDITOR": "vi"}
    kept = scrubbed(environ)
    assert kept.pop("PYTHONPATH").split(os.pathsep) == [str(Path(place).absolute()) for place in sys.path]
    assert kept == {"PATH": "/bin", "LC_ALL": "C", "PYTHONHASHSEED": "0"}
