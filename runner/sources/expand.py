"""From what the job names to files: a path, a glob, a directory.

Rule: order is the user's between patterns and by name within one, so the ordinals of rows are the same everywhere.
"""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from runner.errors import InputError
from runner.sources.catalog import STDIN
from runner.sources.unpack import bare, is_packed

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".csv": "csv"}
_UNREADABLE = {".bz2", ".xz", ".zip"}
_SUFFIXES = (
    "give it one of the suffixes .jsonl, .ndjson, .csv (each also with .gz or .zst), .parquet, or set `input.format`"
)


def expand(patterns: Sequence[str], base: Path, copied: Collection[Path] = ()) -> list[Path]:
    """The files that `patterns` name, as absolute paths; each pattern is relative to `base`.

    `-` is stdin. A directory gives the files in it with a known suffix, hidden ones and subdirectories left out. A file
    named twice, by another pattern or through a link, comes once. copied: files that may be gone when they are named
    by their paths. Raises InputError when a pattern matches nothing.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for path in _matches(pattern, base, copied):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def common_format(paths: Iterable[Path], given: str | None) -> str:
    """The one format of all files. Raises InputError when it cannot be told, or is not one."""
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(given or _format(path), path)
        if is_packed(path) and (given or _format(path)) == "parquet":
            raise InputError(
                f"{path.name}: Parquet is read from its end, so neither from stdin nor compressed as a whole",
                hint="give the .parquet file itself; its pages are compressed already",
            )
    if len(first) > 1:
        (one, path), (other, path2), *_ = first.items()
        raise InputError(
            f"the input mixes formats: {path.name} is {one}, {path2.name} is {other}",
            hint="give the files of one format to a job, or set `input.format`",
        )
    if not first:
        raise InputError("the input names no file", hint="set `input.path`")
    format_ = next(iter(first))
    if format_ not in FORMATS.values():
        raise InputError(f"input.format: `{format_}` cannot be read", hint="use jsonl, parquet or csv")
    return format_


def _format(path: Path) -> str:
    if path == STDIN:
        return "jsonl"
    suffix = bare(path).suffix.lower()
    if suffix in _UNREADABLE:
        raise InputError(f"{path.name}: of compressed files, .gz and .zst can be read", hint=f"unpack it: {path}")
    if suffix not in FORMATS:
        raise InputError(f"{path.name}: the suffix does not tell the format", hint=_SUFFIXES)
    return FORMATS[suffix]


def _matches(pattern: str, base: Path, copied: Collection[Path]) -> list[Path]:
    if pattern == "-":
        return [STDIN]
    place = Path(os.path.abspath(base / Path(pattern).expanduser()))  # noqa: PTH100 (resolve() would follow links, whose targets may lack the suffix)
    if place.is_file() or place in copied:
        return [place]
    paths = _in_directory(place) if place.is_dir() else _globbed(pattern, base)
    if not paths:
        raise _nothing(pattern, place)
    return sorted(paths)


def _in_directory(place: Path) -> list[Path]:
    return [p for p in place.iterdir() if bare(p).suffix.lower() in FORMATS and p.name[0] != "." and p.is_file()]


def _globbed(pattern: str, base: Path) -> list[Path]:
    # root_dir keeps a base like `data[old]` from being read as a pattern
    names = glob.glob(os.path.expanduser(pattern), root_dir=base, recursive=True)  # noqa: PTH111, PTH207
    paths = [Path(os.path.abspath(base / name)) for name in names]  # noqa: PTH100
    return [path for path in paths if path.is_file()]


def _nothing(pattern: str, place: Path) -> InputError:
    if place.is_dir():
        return InputError(f"input.path: `{pattern}` holds no file to read; looked in {place}", hint=_SUFFIXES)
    return InputError(f"input.path: nothing matches `{pattern}`; looked for {place}", hint=_nearby(place))


def _nearby(place: Path) -> str:
    """What a person may have meant: names like the missing one in the last folder that exists."""
    missing, folder = place, place.parent
    while not folder.is_dir():
        missing, folder = folder, folder.parent
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".")
    close = difflib.get_close_matches(missing.name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(f'`{name}`' for name in close)} in {folder}?"
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"{folder} holds {shown or 'nothing'}"
