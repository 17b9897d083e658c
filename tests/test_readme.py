"""The README is kept true: its commands run, its tables are those of the program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.dialect import lines
from runner.records import Kind, Status
from runner.retry import RULES, Halt
from runner.spec.body import PARAMETERS
from runner.wire.choices import ENDINGS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line.removeprefix("$ ") for block in BLOCKS for line in block.split("\n") if line.startswith("$ ")]
SET_UP, TESTS, OFFLINE = COMMANDS[0], COMMANDS[1], COMMANDS[2:]
HALTS = {
    Halt.NEVER: "never",
    Halt.LONG_WAIT: "long wait",
    Halt.OUTAGE: "outage",
    Halt.WEB_PAGES: "web pages",
    Halt.ALIKE: "alike",
    Halt.KEY: "key",
    Halt.MONEY: "money",
    Halt.SETTING: "setting",
}


def checkout(place: Path) -> Path:
    """What git holds, as a clone would have it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    return place


def shell(command: str, place: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNNER_")} | settings
    settled = {"cwd": place, "env": environ, "capture_output": True, "text": True, "timeout": 600}
    return subprocess.run(command, shell=True, check=False, **settled)


def test_the_set_up_line_installs_and_runs_the_main_job(tmp_path: Path) -> None:
    done = shell(SET_UP, checkout(tmp_path), PIP_COMPILE="0")  # a quarter of its time goes into what is never imported
    assert done.returncode == 0, done.stderr
    assert "176 of 176 rows final (176 ok)" in done.stderr
    assert list((tmp_path / "jobs/runs/classify_tickets.simulated/results").glob("*.parquet"))


def test_the_test_line_is_what_ci_runs() -> None:
    # Running it here would run this test again; .ci/run runs both of its halves in a fresh environment.
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    tests = TESTS.rpartition(".venv/bin/")[2]
    assert tests.startswith("python -m pytest") and f"\n{tests}\n" in script
    assert "-e '.[test]'" in TESTS and "-e '.[test]'" in script


def test_the_offline_commands_run_in_order(tmp_path: Path) -> None:
    place = checkout(tmp_path)
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert len(OFFLINE) >= 5
    for command in OFFLINE:
        done = shell(command, place, PATH=here)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("kind", Kind)
def test_the_failure_table_is_the_rules(kind: Kind) -> None:
    rule = RULES[kind]
    again = f"by {rule.by}" if rule.by else f"yes, {rule.most} exchanges" if rule.most else _word(rule.again)
    counts = "own count" if rule.by else _word(rule.counts)
    cells = [kind, rule.signals, again, counts, _word(rule.slows_all), HALTS[rule.halt]]
    assert f"| {' | '.join(cells)} |" in README


def test_the_provider_table_is_the_programs() -> None:
    assert "\n".join(lines()) in README


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_parameter_is_named(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize(("canonical", "outcome", "words"), ENDINGS)
def test_the_table_of_endings_is_that_of_the_wire(canonical: str, outcome: Status | Kind, words: str) -> None:
    others = ", ".join(word for word in words.split() if word != canonical)
    row = f"no answer: {outcome}" if isinstance(outcome, Kind) else outcome
    assert f"| {canonical} | {others or '–'} | {row} |" in README


def _word(value: bool) -> str:
    return "yes" if value else "no"
