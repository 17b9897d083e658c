"""A secret stays where it came from: every byte that a run leaves or says is searched for it."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from endpoint import Endpoint, Place, Said, Seen, ok, refused, until

KEY = "cmt.distinctive.3f9a1c77e2"  # of a shape that nobody would take for a key
TOKEN = "tenant-secret-b81d44"  # of a header, through {env: …}
QUOTED = 'pass"word\\with/quotes&<signs>-77aa'  # a secret that JSON writes in another way


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(8)
        place.job(
            endpoint={"headers": {"x-tenant": {"env": "TENANT"}}},
            limits={"concurrency": 1},
            timeouts={"auth_wait_s": 0.2},
            output={"keep_raw": True},
        )
        yield place


def leaks(place: Place, *secrets: str) -> list[str]:
    """The files under the place that hold a secret, as it is or as JSON writes it; of parts also what is packed."""
    forms = {form.encode() for secret in secrets for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])}
    files = [path for path in place.root.rglob("*") if path.is_file() and path.name != "key.txt"]
    texts = {path: path.read_bytes() for path in files}
    packed = {path: repr(pq.read_table(path).to_pylist()).encode() for path in files if path.suffix == ".parquet"}
    found = [*texts.items(), *packed.items()]
    return sorted({f"{path.name}: {form!r}" for path, text in found for form in forms if form in text})


def bare(seen: Seen) -> str:
    """The key that a request brought."""
    return seen.headers["authorization"].removeprefix("Bearer ")


def telltale(seen: Seen, status: int, body: str | None = None) -> Said:
    """A refusal that repeats what it was sent."""
    told = f"{bare(seen)} and {seen.headers['x-tenant']} were not welcome (row {seen.number % 3})"
    return refused(status, told) if body is None else Said(status, body.replace("SECRET", told))


def scripted(seen: Seen) -> Said:
    """One refusal of each sort, then answers."""
    plain = f"oh no: {bare(seen)}, {seen.headers['x-tenant']}"
    script = [
        ok(),
        telltale(seen, 401),
        telltale(seen, 500),
        telltale(seen, 400),
        telltale(seen, 429),
        Said(502, f"<html><title>{plain}</title></html>", {"content-type": "text/html"}),
        Said(503, plain, {"content-type": "text/plain"}),
    ]
    return script[seen.number] if seen.number < len(script) else ok()


def test_a_server_that_repeats_the_secrets_in_errors_spreads_them_nowhere(place: Place) -> None:
    place.endpoint.answer = scripted
    done = place.run("--json", "-v", TRIAL_KEY=KEY, TENANT=TOKEN)
    assert done.code == 1, done.err
    assert place.endpoint.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert place.endpoint.seen[0].headers["x-tenant"] == TOKEN
    assert place.call("status", "runs/trial", "--json").code == 0
    errors = [attempt["error"] for row in place.records() for attempt in row["attempts"] if attempt["error"]]
    assert len(errors) == 6
    assert all("********" in error for error in errors)
    assert leaks(place, KEY, TOKEN) == []


def test_the_sentence_that_stops_a_run_holds_no_secret(place: Place) -> None:
    place.endpoint.answer = lambda seen: telltale(seen, 402)
    done = place.run("--json", TRIAL_KEY=KEY, TENANT=TOKEN)
    assert done.code == 3
    assert "********" in done.errors[0]
    assert leaks(place, KEY, TOKEN) == []


def test_a_200_that_is_an_error_spreads_no_secret(place: Place) -> None:
    body = json.dumps({"error": {"message": "SECRET", "type": "new_api_error"}})
    place.endpoint.answer = lambda seen: telltale(seen, 200, body) if seen.number == 1 else ok()
    place.run(TRIAL_KEY=KEY, TENANT=TOKEN)
    assert place.sent == 9
    assert leaks(place, KEY, TOKEN) == []


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_header_that_repeats_a_secret_spreads_it_nowhere(place: Place, status: int) -> None:
    place.endpoint.answer = lambda seen: Said(status, ok().body, {"x-request-id": bare(seen)})
    place.run("-n", "2", TRIAL_KEY=KEY, TENANT=TOKEN)
    assert leaks(place, KEY) == []


def test_a_secret_that_json_escapes_is_found_too(place: Place) -> None:
    place.endpoint.answer = lambda seen: telltale(seen, 400) if seen.number == 1 else ok()
    place.run(TRIAL_KEY=KEY, TENANT=QUOTED)
    assert leaks(place, QUOTED) == []


def test_a_key_that_was_replaced_is_still_a_secret(place: Place) -> None:
    key = place.root / "key.txt"
    key.write_text(KEY)
    late: list[Seen] = []

    def answer(seen: Seen) -> Said:
        if seen.headers["authorization"] != f"Bearer {KEY}":
            return ok()
        late.append(seen)
        if len(late) == 1:
            key.write_text("sk-the-next-one-112233")
        return Said(401, telltale(seen, 401).body, delay_s=0.2 * len(late), once=lambda: len(late) > 1)

    place.endpoint.answer = answer
    headers = {"x-tenant": {"env": "TENANT"}}
    place.job(endpoint={"api_key_env": None, "api_key_file": "key.txt", "headers": headers}, limits={"concurrency": 4})
    assert place.run(TENANT=TOKEN).code == 0
    assert len(late) > 1
    assert leaks(place, KEY) == []


def test_nobody_else_can_read_a_run(place: Place) -> None:
    place.endpoint.answer = lambda seen: ok() if seen.number < 3 else telltale(seen, 402)
    careless = "import os, runner.cli; os.umask(0); runner.cli.main()"
    life = place.start("run", "job.yaml", program=careless, TRIAL_KEY=KEY, TENANT=TOKEN)
    assert life.wait().code == 3
    stopped = modes(place.run_root)
    place.endpoint.answer = lambda seen: ok()
    life = place.start("run", "job.yaml", program=careless, TRIAL_KEY=KEY, TENANT=TOKEN)
    assert life.wait().code == 0
    for seen in (stopped, modes(place.run_root)):
        assert {mode for name, mode in seen.items() if name.endswith("/")} == {0o700}
        assert {mode for name, mode in seen.items() if not name.endswith("/")} == {0o600}
        assert len(seen) >= 7


def modes(root: Path) -> dict[str, int]:
    """The permissions of a directory and of all in it; directories end in /."""
    found = {f"{path}/" if path.is_dir() else str(path): path for path in [root, *root.rglob("*")]}
    return {name: stat.S_IMODE(path.stat().st_mode) for name, path in found.items()}


def test_the_simulator_never_sees_a_key(place: Place) -> None:
    place.rows(2000)
    life = place.start("run", "job.yaml", "--simulate", TRIAL_KEY=KEY, TENANT=TOKEN)
    status = place.root / "runs" / "trial.simulated" / "status.json"
    assert until(status.exists)
    family = [life.pid, *children(life.pid)]
    words = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family}
    surroundings = {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in family[1:]}
    life.signal(signal.SIGINT)
    assert life.wait().code == 130
    assert len(family) == 2
    for text in [*words.values(), *surroundings.values()]:
        assert KEY.encode() not in text
        assert TOKEN.encode() not in text
    assert leaks(place, KEY, TOKEN) == []
    assert until(lambda: not Path(f"/proc/{family[1]}").exists())  # it ends with its parent


def children(pid: int) -> list[int]:
    """Of all its threads: whichever of them started one has it."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            found += map(int, task.read_text().split())
    return found


def test_a_key_written_into_the_job_file_is_refused_without_repeating_it(place: Place) -> None:
    for changes in ({"api_key": KEY}, {"api_key_env": KEY}, {"base_url": f"http://user:{KEY}@127.0.0.1:1/v1"}):
        place.job(endpoint=changes)
        done = place.run("-o", "other", TRIAL_KEY="sk-unused-000", TENANT=TOKEN)
        assert done.code == 2
        assert KEY not in done.err
        assert not (place.root / "other").exists()
