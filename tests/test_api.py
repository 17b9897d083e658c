"""What a call from Python asks for, and the rows that it brings; whole runs are in acceptance/test_api_runs.py."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

import runner
from runner import api
from runner.asking import KNOWN, asked_for
from runner.errors import InputError, JobError, UsageError
from runner.frames import GROUP_ROWS, is_rows, spool
from runner.spec import parse
from runner.stop import Leash

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "{{ text }}"}]}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    TEXT | NUMBERS | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def no_file(name: str) -> str:
    raise FileNotFoundError(name)


def members(**more: Any) -> dict[str, Any]:
    return {"name": "a", "input": {"path": "rows.jsonl"}, "request": REQUEST, **more}


def job_of(given: Any, *sets: str) -> Any:
    return parse(given, "job", read_file=no_file, overrides=sets)


# The face


def test_importing_runner_imports_nothing_heavy() -> None:
    script = "import runner, sys; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"pyarrow", "pandas", "pydantic", "aiohttp", "httpx", "anyio", "jinja2", "numpy", "genai_prices", "tqdm"}
    assert not (heavy | {"asyncio", "ssl"}) & set(loaded)


PUBLIC = [runner.run, runner.arun, runner.open_run, runner.read_results]
METHODS = [runner.Run.status, runner.Run.results, runner.Run.cost, runner.Result.cost, runner.Result.ok.fget]


@pytest.mark.parametrize("function", [*PUBLIC, *METHODS], ids=lambda function: function.__qualname__)
def test_public_functions_are_typed_and_documented(function: Any) -> None:
    signature = inspect.signature(function)
    given = [parameter for name, parameter in signature.parameters.items() if name != "self"]
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in given)
    assert signature.return_annotation is not inspect.Signature.empty
    assert function.__doc__ or function.__name__ == "ok"


def test_run_and_arun_take_the_same() -> None:
    run, arun = inspect.signature(runner.run), inspect.signature(runner.arun)
    assert (run.parameters, run.return_annotation) == (arun.parameters, arun.return_annotation)
    assert inspect.iscoroutinefunction(runner.arun)


def test_every_override_that_is_typed_is_known_and_the_reverse() -> None:
    assert sorted(get_type_hints(api.Overrides)) == sorted(KNOWN)


# What is asked


def asked(job: Any, **overrides: Any) -> Any:
    with asked_for(job, overrides) as (asked, options):
        return asked, options


def test_overrides_become_those_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, options = asked(
        "jobs/x.yaml",
        input=["a.jsonl", Path("b.jsonl")],
        output="there",
        limit=np.int64(3),
        concurrency="auto",
        simulate=True,
        set={"request.model": "no", "request.temperature": 0},
        allow_failed=2,
        max_failures="5%",
        fresh=True,
        environ={"K": "v"},
    )
    assert (found.job, found.output, found.simulate) == (Path("jobs/x.yaml"), tmp_path / "there", True)
    assert found.sets == (
        'request.model="no"',
        "request.temperature=0",
        "input.limit=3",
        'limits.concurrency="auto"',
        f'input.path=["{tmp_path}/a.jsonl", "{tmp_path}/b.jsonl"]',
    )
    assert (options.allow_failed, options.max_failures, options.fresh) == ("2", "5%", True)
    assert options.environ == {"K": "v"}


def test_none_and_false_are_not_given() -> None:
    found, options = asked("x.yaml", **dict.fromkeys(KNOWN))
    assert (found.sets, found.output, found.simulate, options.fresh) == ((), None, False, False)
    assert asked("x.yaml", fresh=False, simulate=False, quiet=False)[0] == found


def test_nothing_failed_may_be_asked_for() -> None:
    assert asked("x.yaml", allow_failed=0, max_failures=0)[1].max_failures == "0"


def test_an_option_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match="there is no option `simulated`") as raised:
        asked("x.yaml", simulated=True)
    assert raised.value.hint == "did you mean simulate?"


@settings(deadline=None, max_examples=EXAMPLES)
@given(VALUES)
def test_what_is_set_is_what_the_job_gets(value: Any) -> None:
    found, _ = asked("x.yaml", set={"vars.x": value})
    assert job_of(members(), *found.sets).vars == {"x": value}


@settings(deadline=None, max_examples=EXAMPLES)
@given(VALUES)
def test_a_dict_is_taken_as_it_is(value: Any) -> None:
    assert job_of(members(vars={"x": value})).vars == {"x": value}


def test_a_dict_is_the_job_that_its_file_would_be() -> None:
    text = "name: a\ninput: {path: rows.jsonl}\nrequest: {model: m, messages: [{role: user, content: '{{ text }}'}]}\n"
    pricing = "pricing: {m: {input: 0.40, output: 1.6}}\nlimits: {concurrency: 3}\ntags: {1: x}\n"
    like = members(
        input={"path": PurePosixPath("rows.jsonl")},
        pricing={"m": {"input": Decimal("0.40"), "output": np.float64(1.6)}},
        limits={"concurrency": np.int64(3)},
        tags={1: "x"},
    )
    assert job_of(like) == job_of(text + pricing)
    assert job_of(like).where("request.model") == "job"


def test_a_dict_without_an_end_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(JobError, match="nested deeper than 60 levels"):
        job_of(members(vars={"x": endless}))


# Rows in memory

TABLE = pa.table({"n": [1, None, 3], "text": ["a", "b", None]})


def test_the_same_rows_are_the_same_file(tmp_path: Path) -> None:
    first = spool(TABLE, tmp_path / "in")
    assert (first.made, first.format, pq.read_table(first.path).equals(TABLE)) == (True, "parquet", True)
    noted = TABLE.replace_schema_metadata({"pandas": "of some version"})
    again = spool(noted, tmp_path / "in")
    assert (again.path, again.made) == (first.path, False)
    others = [TABLE.slice(0, 2), TABLE.rename_columns(["n", "t"]), TABLE.select(["text", "n"]), TABLE.to_pylist()]
    others += [TABLE.set_column(0, "n", TABLE["n"].cast(pa.int32()))]
    assert len({spool(other, tmp_path / "in").path for other in [TABLE, *others]}) == 6


def test_frames_keep_their_types(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c": pd.Categorical(["x", "y"]), "l": [[1], [2, 3]], "s": [{"a": 1}, None], 5: [1.5, None]})
    table = pq.read_table(spool(frame, tmp_path).path)
    assert table.column_names == ["c", "l", "s", "5"]
    assert table.to_pylist()[1] == {"c": "y", "l": [2, 3], "s": None, "5": None}
    polar = pl.DataFrame({"text": ["a"], "d": [Decimal("1.50")]})
    assert pq.read_table(spool(polar, tmp_path).path).to_pylist() == [{"text": "a", "d": Decimal("1.50")}]


def test_row_groups_are_no_larger_than_a_part(tmp_path: Path) -> None:
    file = pq.ParquetFile(spool(pa.table({"n": range(2 * GROUP_ROWS + 1)}), tmp_path).path)
    assert [file.metadata.row_group(number).num_rows for number in range(3)] == [GROUP_ROWS, GROUP_ROWS, 1]


def test_dicts_are_json_lines(tmp_path: Path) -> None:
    rows = [{"n": np.int32(1), "f": np.float64(0.5)}, {"n": 2**80, "t": "ü\n"}, {"t": "half \ud800"}]
    body = spool(rows, tmp_path).path.read_bytes()
    assert body.split(b"\n")[0] == b'{"n":1,"f":0.5}'
    assert body.count(b"\n") == 3
    assert b"1208925819614629174706176" in body
    assert spool([], tmp_path).path.read_bytes() == b""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([{"a": object()}], "row 0 of the input cannot be written as JSON: Object of type object"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "two columns of one name: a"),
        (pd.DataFrame({"a": [1, "x"]}), "the data frame has no Arrow types"),
    ],
)
def test_what_no_file_can_hold_is_refused_and_leaves_nothing(tmp_path: Path, data: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        spool(data, tmp_path / "in")
    assert list(tmp_path.iterdir()) == []


def test_what_was_made_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    kept = spool(TABLE, tmp_path / "runs/x.input")
    other = spool(TABLE.slice(1), tmp_path / "runs/x.input")
    other.forget()
    spool(TABLE, tmp_path / "runs/x.input").forget()  # it was there before
    assert list((tmp_path / "runs/x.input").iterdir()) == [kept.path]
    kept.forget()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [TABLE, TABLE.to_pandas(), pl.DataFrame({"a": [1]}), TABLE.to_batches()[0], [{}], []])
def test_rows_are_told(data: Any) -> None:
    assert is_rows(data)


@pytest.mark.parametrize("data", ["rows.jsonl", Path("rows.jsonl"), ["rows.jsonl"], b"x", 5, [1]])
def test_rows_are_told_from_paths(data: Any) -> None:
    assert not is_rows(data)


# The leash


def test_each_pull_is_heard_once_whenever_it_comes() -> None:
    leash, heard = Leash(), list[Any]()
    leash.pull(15)

    async def loop() -> None:
        soon = asyncio.get_running_loop().call_soon_threadsafe
        with leash.tied(heard.append, soon):
            assert heard == [15]
            leash.pull(2)
            leash.pull(2)
            assert heard == [15]  # in the loop, not in the caller
            await asyncio.sleep(0.01)
        leash.pull(2)
        await asyncio.sleep(0.01)

    asyncio.run(loop())
    assert heard == [15, 15, 15]
    with pytest.raises(KeyboardInterrupt):
        leash.check()
    Leash().check()
