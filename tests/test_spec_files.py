"""`{file: path}`: prompts, schemas and constants kept beside the job file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.errors import JobError
from runner.spec import JobSpec, parse

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def job(files: dict[str, str], **job_keys: Any) -> JobSpec:
    request = {**REQUEST, **job_keys.pop("request", {})}
    text = json.dumps({"input": {"path": "a"}, "request": request, **job_keys})
    return parse(text, "jobs/x.yaml", read_file=lambda path: _read(files, path))


def _read(files: dict[str, str], path: str) -> str:
    if path not in files:
        raise FileNotFoundError(2, "No such file or directory")
    return files[path].encode("latin-1").decode() if path.endswith(".latin") else files[path]


def mistakes(files: dict[str, str], **job_keys: Any) -> list[str]:
    with pytest.raises(JobError) as raised:
        job(files, **job_keys)
    return list(raised.value.mistakes)


VALUES = [
    ("a.json", '{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
    ("a.JSON", "[1]", [1]),
    ("a.yaml", "a: no\nb: [1]\n", {"a": "no", "b": [1]}),
    ("a.yml", "- 1\n", [1]),
    ("a.jsonl", '{"a": 1}\n\n[2]\r\n"x\u2028y"', [{"a": 1}, [2], "x\u2028y"]),
    ("a.csv", 'name,code\nann,1\n\n"b,\nb",2\n', [{"name": "ann", "code": "1"}, {"name": "b,\nb", "code": "2"}]),
    ("labels.csv", "label\r\nbilling\r\nlogin\r\n", ["billing", "login"]),
    ("only_head.csv", "a,b\n", []),
    ("a.txt", "no\n", "no\n"),
    ("a.md", "{file: b}", "{file: b}"),
    ("noname", "x", "x"),
    ("bom.json", "\ufeff[1]", [1]),
    ("bom.txt", "\ufeffx", "x"),
    ("empty.jsonl", "", []),
    ("empty.yaml", "", None),
    ("big.json", "123456789012345678901234567890", 123456789012345678901234567890),
]


@pytest.mark.parametrize(("path", "text", "value"), VALUES)
def test_a_constant_is_what_its_suffix_says(path: str, text: str, value: Any) -> None:
    assert job({path: text}, vars={"x": {"file": path}}).vars == {"x": value}


def test_a_prompt_from_a_file_stays_a_template() -> None:
    message = {"role": "user", "content": {"file": "p.txt"}}
    assert job({"p.txt": "Label {{ title }}\n"}, request={"messages": [message]}).request.messages == (
        {"role": "user", "content": "Label {{ title }}\n"},
    )


def test_a_text_part_may_come_from_a_file() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": {"file": "p.txt"}}]}
    (read,) = job({"p.txt": "hello"}, request={"messages": [message]}).request.messages
    assert read["content"] == [{"type": "text", "text": "hello"}]


def test_a_part_that_names_local_media_is_no_text_to_be_read() -> None:
    parts = [{"type": kind, kind: {"file": "gone.bin"}} for kind in ("image_url", "input_audio", "file")]
    message = {"role": "user", "content": parts}
    assert job({}, request={"messages": [message]}).request.messages == (message,)


@pytest.mark.parametrize(
    ("path", "text"), [("s.json", '{"type": "object"}'), ("s.yaml", "type: object"), ("s", '{"type": "object"}')]
)
def test_a_schema_may_come_from_a_file(path: str, text: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"file": path}}}
    read = job({path: text}, request={"response_format": form}).request.params["response_format"]
    assert read["json_schema"]["schema"] == {"type": "object"}


def test_a_schema_file_that_holds_no_mapping_is_a_mistake() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"file": "s.json"}}}
    assert mistakes({"s.json": "[]"}, request={"response_format": form}) == [
        "jobs/x.yaml:1: request.response_format.json_schema.schema: "
        "must be a mapping (a JSON Schema) or {file: path}, not a list"
    ]


def test_a_reference_elsewhere_is_data() -> None:
    files = {"a": {"file": "x"}, "b": {"file": "x", "page": 2}}
    assert job({}, vars={"deep": files, "b": files["b"]}).vars == {"deep": files, "b": files["b"]}


def test_what_a_file_holds_is_not_looked_into_for_more_files() -> None:
    assert job({"a.json": '{"x": {"file": "b"}}'}, vars={"a": {"file": "a.json"}}).vars == {"a": {"x": {"file": "b"}}}


def test_a_dump_holds_what_the_files_held() -> None:
    spec = job({"l.csv": "label\na\n"}, vars={"l": {"file": "l.csv"}})
    assert spec.dump()["vars"] == {"l": ["a"]}
    assert spec.where("vars.l.0") == "jobs/x.yaml:1"


BAD = [
    ("gone.txt", "cannot read gone.txt: No such file or directory"),
    ("é.latin", "cannot read é.latin: not UTF-8 text (byte 0)"),
    ("a.json", "a.json:2: not JSON: Expecting value"),
    ("nan.json", "nan.json:1: not JSON: a number too large, or nested too deeply"),
    ("big.json", "big.json:1: not JSON: a number too large, or nested too deeply"),
    ("half.json", "half.json:1: holds half a character (a lone surrogate escape)"),
    ("deep.json", "deep.json:1: not JSON: a number too large, or nested too deeply"),
    ("a.jsonl", "a.jsonl:3: not JSON: Expecting property name enclosed in double quotes"),
    ("a.yaml", "a.yaml:2: a: written twice; first at a.yaml:1"),
    ("b.yaml", "b.yaml:1: not YAML: expected the node content, but found '<stream end>'"),
    ("ragged.csv", "ragged.csv:3: has 1 fields where the first line has 2"),
    ("twice.csv", "twice.csv:1: the first line must name the columns, each once"),
    ("empty.csv", "empty.csv:1: the first line must name the columns, each once"),
    ("quote.csv", "quote.csv:2: not CSV: unexpected end of data"),
    ("", "the path of a file must be text"),
    (3, "the path of a file must be text"),
]
FILES = {
    "é.latin": "é",
    "a.json": "[1,\n]",
    "nan.json": "NaN",
    "big.json": "1e999",
    "half.json": '"\\ud800"',
    "deep.json": "[" * 100_000,
    "a.jsonl": "1\n\n{\n",
    "a.yaml": "a: 1\na: 2\n",
    "b.yaml": "[",
    "ragged.csv": "a,b\n1,2\n3\n",
    "twice.csv": "a,a\n1,2\n",
    "empty.csv": "",
    "quote.csv": 'a\n"x',
}


@pytest.mark.parametrize(("path", "said"), BAD)
def test_a_file_that_cannot_be_used_is_told_at_its_reference(path: Any, said: str) -> None:
    assert mistakes(FILES, vars={"x": {"file": path}}) == [f"jobs/x.yaml:1: vars.x: {said}"]


def test_a_missing_prompt_is_one_mistake() -> None:
    message = {"role": "user", "content": {"file": "gone.txt"}}
    assert mistakes({}, request={"messages": [message]}) == [
        "jobs/x.yaml:1: request.messages.0.content: cannot read gone.txt: No such file or directory"
    ]
