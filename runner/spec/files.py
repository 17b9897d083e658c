"""`{file: path}`: long prompts, schemas and constants kept beside the job file.

Rule: files are read by the caller's `read_file`, and what they hold stands where the reference stood: a prompt stays a
template, a schema becomes a mapping, a constant becomes what its suffix says. References are known by their position
alone; the same mapping elsewhere is data.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from runner.spec.positions import Mistake, Node, Place, find, halved
from runner.spec.read import NotYamlError, read

ReadFile = Callable[[str], str]
Parser = Callable[[str, str], Any]


class _BadFileError(Exception):
    """The file does not hold what its suffix promises."""


def _text(text: str, _: str) -> str:
    return text


def _yaml(text: str, path: str) -> Any:
    try:
        node, mistakes = read(text, lambda line: Place.line(path, line))
    except NotYamlError as error:
        raise _BadFileError(str(error.mistake)) from None
    if mistakes:
        raise _BadFileError(str(mistakes[0]))
    return node.plain()


def _json(text: str, path: str) -> Any:
    return _json_from(text, path, 1)


def _json_from(text: str, path: str, line: int) -> Any:
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise _BadFileError(f"{path}:{line + error.lineno - 1}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        raise _BadFileError(f"{path}:{line}: not JSON: a number too large, or nested too deeply") from None
    if halved(json.dumps(value, ensure_ascii=False)):
        raise _BadFileError(f"{path}:{line}: holds half a character (a lone surrogate escape)")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _jsonl(text: str, path: str) -> list[Any]:
    # Not splitlines(): JSON text may hold U+2028, which is no line break.
    lines = enumerate(text.split("\n"), start=1)
    return [_json_from(line, path, number) for number, line in lines if line.strip()]


def _csv(text: str, path: str) -> list[Any]:
    """Row mappings; the plain values when there is one column."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        table = [(rows.line_num, row) for row in rows if row]
    except csv.Error as error:
        raise _BadFileError(f"{path}:{rows.line_num}: not CSV: {error}") from None
    names = table[0][1] if table else []
    if len(set(names)) < max(1, len(names)):
        raise _BadFileError(f"{path}:1: the first line must name the columns, each once")
    for line, row in table:
        if len(row) != len(names):
            raise _BadFileError(f"{path}:{line}: has {len(row)} fields where the first line has {len(names)}")
    bodies = [row for _, row in table[1:]]
    return [row[0] for row in bodies] if len(names) == 1 else [dict(zip(names, row, strict=True)) for row in bodies]


BY_SUFFIX: dict[str, Parser] = {".json": _json, ".yaml": _yaml, ".yml": _yaml, ".jsonl": _jsonl, ".csv": _csv}
SCHEMA_BY_SUFFIX: dict[str, Parser] = {".yaml": _yaml, ".yml": _yaml}

#: (where a reference may stand, how its file is read)
REFERENCES: tuple[tuple[str, Callable[[str], Parser]], ...] = (
    ("vars.*", lambda suffix: BY_SUFFIX.get(suffix, _text)),
    ("request.messages.*.content", lambda _: _text),
    ("request.messages.*.content.*.text", lambda _: _text),
    ("request.response_format.json_schema.schema", lambda suffix: SCHEMA_BY_SUFFIX.get(suffix, _json)),
)


def resolve(tree: Node, read_file: ReadFile) -> tuple[Node, list[Mistake]]:
    """The tree with every reference replaced by what its file holds, and the references that failed."""
    mistakes: list[Mistake] = []
    for pattern, parser_for in REFERENCES:
        for path, value in list(find(tree.plain(), pattern)):
            if not (isinstance(value, dict) and list(value) == ["file"]):
                continue
            place, known = tree.nearest(path)
            held, problem = _load(value["file"], parser_for, read_file)
            if problem:
                mistakes.append(Mistake(place, known, problem))
            else:
                tree = tree.placed(path, Node(place, held, whole=True))
    return tree, mistakes


def _load(path: Any, parser_for: Callable[[str], Parser], read_file: ReadFile) -> tuple[Any, str]:
    """(what the file holds, ""), or (None, what went wrong)."""
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        return None, "the path of a file must be text"
    try:
        text = read_file(path).removeprefix("\ufeff")
        return parser_for(PurePath(path).suffix.lower())(text, path), ""
    except UnicodeDecodeError as error:
        return None, f"cannot read {path}: not UTF-8 text (byte {error.start})"
    except OSError as error:
        return None, f"cannot read {path}: {error.strerror or error}"
    except _BadFileError as error:
        return None, str(error)
