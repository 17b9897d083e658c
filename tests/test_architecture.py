"""The import law, the public names, and the size of the rooms."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import runner

ROOT = Path(runner.__file__).parent
LAYERS = {
    "words": ["errors", "records"],
    "rules": [
        "spec",
        "template",
        "wire",
        "outputs",
        "columns",
        "reask",
        "retry",
        "halts",
        "pace",
        "catalogue",
        "pricing",
        "serverside",
        "worstcase",
        "budget",
        "dialect",
        "recipe",
        "sampling",
        "demand",
        "plan",
        "conversation",
        "interchange",
        "scales",
    ],
    "edges": [
        "sources",
        "survey",
        "transport",
        "market",
        "media",
        "credentials",
        "files",
        "frames",
        "journal",
        "parts",
        "store",
        "lock",
        "recovery",
        "notes",
        "reopen",
        "answered",
    ],
    "shell": [
        "stop",
        "ports",
        "admission",
        "exchange",
        "lanes",
        "engine",
        "keep",
        "feed",
        "say",
        "progress",
        "misfits",
        "prepare",
        "wiring",
        "forecast",
        "drawn",
        "ending",
        "notify",
        "opening",
        "partial",
        "relayout",
        "renamed",
        "comparing",
        "consent",
        "trial",
        "changing",
        "drive",
        "simulator",
        "overrun",
        "running",
    ],
    "faces": [
        "reading",
        "previewing",
        "rendering",
        "standing",
        "export",
        "showing",
        "variables",
        "looking",
        "watching",
        "bill",
        "report",
        "accounting",
        "pricelist",
        "summary",
        "checking",
        "table",
        "asking",
        "api",
        "cli",
        "__main__",
        "__init__",
    ],
}
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS.values()) for room in rooms}
WORDS_AND_RULES = {*LAYERS["words"], *LAYERS["rules"]}
IMPURE = {"anyio", "asyncio", "httpx", "aiohttp", "os", "pandas", "random", "tenacity", "time", "tqdm", "socket"}
#: A library that may be imported by these rooms only.
OWNED = {
    "httpx": {"transport"},
    "aiohttp": {"transport"},
    "yarl": {"transport"},
    "tenacity": {"engine"},
    "tqdm": {"progress"},
    "starlette": {"simulator"},
    "uvicorn": {"simulator"},
    "genai_prices": {"pricing"},
    "ruamel": {"spec"},
    "pydantic": {"spec"},
    "jinja2": {"template", "report"},
}
FILES = sorted(path for path in ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever the statement stands, typing-only ones left out."""
    found: set[str] = set()
    for node in _outside_type_checking(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _outside_type_checking(tree: ast.Module) -> list[ast.AST]:
    hidden = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {id(inner) for node in hidden for inner in ast.walk(node)}
    return [node for node in ast.walk(tree) if id(node) not in skipped]


def test_every_room_has_its_place() -> None:
    assert {room_of(path) for path in FILES} == set(LAYER_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downward_only(path: Path) -> None:
    own = room_of(path)
    for name in imports(path):
        if name.startswith("runner."):
            other = name.split(".")[1]
            other = other if other in LAYER_OF else "__init__"
            allowed = LAYER_OF[other] <= LAYER_OF[own] or own == "__init__"
            assert allowed, f"{path.name} ({own}) imports {name}, which is above it"


@pytest.mark.parametrize(
    "path", [path for path in FILES if room_of(path) in WORDS_AND_RULES], ids=lambda path: str(path.relative_to(ROOT))
)
def test_words_and_rules_touch_no_clock_no_net_no_disk(path: Path) -> None:
    found = imports(path)
    assert not {name.split(".")[0] for name in found} & IMPURE
    assert not any(name.startswith("pyarrow.parquet") for name in found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_foreign_library_has_one_owner(path: Path) -> None:
    for name in imports(path):
        owners = OWNED.get(name.split(".")[0])
        assert owners is None or room_of(path) in owners, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 340, "the file has outgrown its room"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            size = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
            assert size <= 60, f"{node.name} scrolls"


def test_every_module_says_what_it_is() -> None:
    silent = [str(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


def test_the_public_names_are_these() -> None:
    assert runner.__all__ == ["Cost", "Result", "Run", "RunnerError", "arun", "open_run", "read_results", "run"]
    assert all(callable(getattr(runner, name)) for name in runner.__all__)


def test_help_imports_nothing_heavy() -> None:
    """`runner --help` must answer at once: none of these may be imported for it."""
    script = (
        "import sys, runner.cli\n"
        "try:\n    runner.cli.commands.main(['--help'])\n"
        "except SystemExit:\n    print('|'.join(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    heavy = {"pyarrow", "pandas", "pydantic", "aiohttp", "httpx", "anyio", "jinja2", "numpy", "genai_prices", "tqdm"}
    assert not heavy & set(shown.split("\n")[-2].split("|"))


def test_nothing_runs_text_from_data() -> None:
    """No eval, exec, pickle or os.system anywhere in the package."""
    forbidden = re.compile(r"\b(eval|exec|pickle\.loads?|os\.system|yaml\.load)\(")
    found = [str(path) for path in FILES if forbidden.search(path.read_text(encoding="utf-8"))]
    assert found == []
