"""`runner report` as people use it, and its page in a real browser: nothing that came from outside runs there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from endpoint import Endpoint, Place, Said, Seen, ok, refused, until

from runner.report import report
from tests.hostile import RUN
from tests.made_run import MadeRun, made_run
from tests.reported import REQUEST, answer, attempt, hostile_run, settled

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browses = pytest.mark.skipif(BROWSER is None, reason="no Chromium here; on Debian: apt-get install chromium")
MADE_AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
SCRIPT = f"<script>{RUN}</script>"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Endpoint() as endpoint:
        place = Place(tmp_path, endpoint)
        place.rows(6)
        place.job(input={"id_column": "id"})
        yield place


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    made = made_run(tmp_path / "run", [{"text": "x"}, {"text": "y"}], request=REQUEST)
    made.seal(0, [settled(0, answer("spam"), attempt(1, "0.1")), settled(1, answer("ham"), attempt(1, "0.2"))])
    return made


def test_the_page_stands_in_the_run_and_its_place_is_printed(place: Place) -> None:
    assert place.run().code == 0
    for target in ("job.yaml", str(place.run_root)):
        done = place.call("report", target)
        assert (done.code, done.err) == (0, "")
        page = Path(done.out.removesuffix("\n"))
        assert page == place.run_root / "report.html"
        assert "Run report · finished" in page.read_text(encoding="utf-8")
        assert oct(page.stat().st_mode & 0o777) == "0o600"
    assert place.run().code == 0, "the page is no stranger in the run"


def test_the_page_goes_to_a_file_or_to_stdout(place: Place) -> None:
    assert place.run().code == 0
    assert place.call("report", "job.yaml", "-o", "page.html").out == "page.html\n"
    to_stdout = place.call("report", "job.yaml", "-o", "-").out
    assert to_stdout.startswith("<!doctype html>") and to_stdout.endswith("</html>\n")
    assert not (place.run_root / "report.html").exists()


def test_no_file_but_a_report_is_written_over(place: Place) -> None:
    assert place.run().code == 0
    job = place.root / "job.yaml"
    before = job.read_bytes()
    done = place.call("report", "job.yaml", "-o", "job.yaml")
    assert done.code == 2 and "is no report" in done.err and job.read_bytes() == before


def test_what_is_no_run_is_refused(place: Place) -> None:
    done = place.call("report", ".")
    assert (done.code, done.out) == (2, "") and "is not the directory of a run" in done.err


def test_a_run_that_goes_on_has_its_page(place: Place) -> None:
    def say(seen: Seen) -> Said:
        row = int(seen.text.split()[-1])
        if row == 3 and sum(each.text == seen.text for each in place.endpoint.seen) == 1:
            return refused(429, "Slow down.", "rate_limit_exceeded", retry_after="0.05")
        return Said(200, ok("fine").body, once=lambda: row != 5)

    place.endpoint.answer = say
    life = place.start("run", "job.yaml")
    page = ""

    def five_are_final() -> bool:
        nonlocal page
        page = place.call("report", "job.yaml", "-o", "-").out
        return "The run goes on" in page and '>5</dd><dd class="remark">of 6<' in page

    assert until(five_are_final)
    assert "not final yet" in page and "<h3>Replies 429</h3>" in page
    life.signal(signal.SIGKILL)
    life.wait()


def opened(page: str, place: Path, *words: str) -> str:
    """What a browser has made of a page, as HTML, once everything in it had its time."""
    assert BROWSER
    path = place / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *words]
    command += [f"--user-data-dir={place / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", path.as_uri()]
    settled = {"capture_output": True, "text": True, "timeout": 120, "encoding": "utf-8"}
    return subprocess.run(command, check=True, env=dict(os.environ), **settled).stdout


def ran(dom: str) -> bool:
    return re.search(r"<title>\s*RAN", dom) is not None


@browses
def test_hostile_text_runs_nothing_in_a_browser_even_without_the_policy(tmp_path: Path) -> None:
    page = report(hostile_run(tmp_path).directory, MADE_AT)
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert bare != page
    for number, text in enumerate((page, bare)):
        (tmp_path / str(number)).mkdir()
        dom = opened(text, tmp_path / str(number))
        assert not ran(dom)
        assert "<script" not in dom and "</html>" in dom and "<svg" in dom


@browses
def test_the_policy_alone_stops_a_script_and_the_browser_would_have_run_it(made: MadeRun, tmp_path: Path) -> None:
    page = report(made.directory, MADE_AT).replace("</main>", f"{SCRIPT}</main>")
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    for number, (text, runs) in enumerate(((page, False), (bare, True))):
        (tmp_path / str(number)).mkdir()
        assert ran(opened(text, tmp_path / str(number))) is runs


@browses
def test_the_page_is_printed(made: MadeRun, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    opened(report(made.directory, MADE_AT), tmp_path, f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
