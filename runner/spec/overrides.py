"""`--set dotted.path=value`: one value of the job file replaced from outside.

Rule: an override goes into the tree before anything is judged, so it is judged like the file, and its mistakes carry
its own name as their place. The value is never repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from runner.spec import body
from runner.spec.model import SECTIONS, JobSpec, PriceSpec, TierSpec, keys_of
from runner.spec.positions import Mistake, Node, Part, Path, Place, dotted, halved, splits
from runner.spec.read import NotYamlError, read
from runner.spec.words import guess

#: Sections whose keys are not only their model's fields.
KEYS: dict[str, tuple[str, ...]] = {
    **{name: keys_of((name,)) for name in SECTIONS},
    "request": body.KEYS,
}
LEAVES = (
    *(name for name in JobSpec.model_fields if name not in SECTIONS),
    *(f"{section}.{key}" for section, keys in KEYS.items() for key in keys),
)


def apply(tree: Node, overrides: Sequence[str]) -> tuple[Node, list[Mistake]]:
    """The tree with every override applied in turn, and the overrides that cannot be."""
    mistakes: list[Mistake] = []
    for override in overrides:
        path, mark, text = override.partition("=")
        place = Place.override(path) if mark else replace(Place.override(""), text="--set")
        # What the shell hands over as bytes that are no UTF-8 arrives as halves of characters.
        writable = mark and not halved(override)
        objection = _objection(tree, path) if writable else "write it as dotted.path=value, in UTF-8"
        value, problem = (None, objection) if objection else _value(text, place)
        if value is None:
            mistakes.append(Mistake(place, (), problem or ""))
        else:
            tree = _put(tree, _steps(tree, path), value)
    return tree, mistakes


def _value(text: str, place: Place) -> tuple[Node | None, str | None]:
    # A template opens like a YAML flow mapping, and is always meant as text.
    if text.startswith(("{{", "{%")):
        return Node(place, text), None
    try:
        node, mistakes = read(text, lambda _: place)
    except NotYamlError as error:
        return None, error.mistake.sentence
    return (None, mistakes[0].sentence) if mistakes else (replace(node, place=place), None)


def _objection(tree: Node, path: str) -> str | None:
    """Why nothing can be set at `path`."""
    section, _, rest = path.partition(".")
    key = rest.partition(".")[0]
    if section in SECTIONS and not rest:
        return f"{section} is a section; set one of its keys, {section}.{KEYS[section][0]} for example"
    known = section in JobSpec.model_fields and (
        section not in SECTIONS or section == "pricing" or key in KEYS[section]
    )
    if not known:
        return f"unknown key{_suggestion(section, key)}"
    if "" in (steps := _steps(tree, path)):
        return "a dotted path has no empty steps"
    return _blocked(tree, steps)


def _suggestion(section: str, key: str) -> str:
    for leaf in LEAVES:
        if not key and leaf.endswith(f".{section}"):
            return f"; did you mean {leaf}?"
    return guess(f"{section}.{key}" if key else section, LEAVES)


def _blocked(tree: Node, path: Path) -> str | None:
    node: Node | None = tree
    for depth, part in enumerate(path):
        if node is None or node.value is None:
            return None
        if isinstance(node.value, list) and node.child(part) is None:
            return f"there is no item {part}: {dotted(path[:depth])} holds {len(node.value)}, counted from 0"
        if not isinstance(node.value, list | dict):
            return f"{dotted(path[:depth])} is one value and has nothing inside"
        node = node.child(part)
    return None


def _steps(tree: Node, path: str) -> Path:
    steps: list[Part] = []
    node, rest = tree, path
    while rest:
        part, rest = _step(tuple(steps), node, rest)
        steps.append(part)
        node = node.child(part) or Node(node.place, None)
    return tuple(steps) if not path.endswith(".") else (*steps, "")


def _step(above: Path, node: Node, rest: str) -> tuple[Part, str]:
    """One step of the path. Headers, tags and models' names may hold dots of their own."""
    if above in (("tags",), ("endpoint", "headers")):
        return rest, ""
    if above == ("pricing",):
        return _model_and_rate(rest)
    return next(splits(node, rest))


def _model_and_rate(rest: str) -> tuple[str, str]:
    """`gpt-4.1.input`, `gpt-4.1.flex`, `gpt-4.1.flex.input`: the model, and what of its price."""
    model, _, rate = rest.rpartition(".")
    above, _, tier = model.rpartition(".")
    if above and rate in TierSpec.model_fields and tier in PriceSpec.model_fields:
        return above, f"{tier}.{rate}"
    return (model, rate) if model and rate in PriceSpec.model_fields else (rest, "")


def _put(node: Node, path: Path, value: Node) -> Node:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(head, int) and isinstance(node.value, list):
        changed: Any = [_put(item, rest, value) if at == head else item for at, item in enumerate(node.value)]
        return replace(node, value=changed)
    items: dict[Part, Node] = dict(node.value or {})
    items[head] = _put(items.get(head) or Node(value.place, None), rest, value)
    return replace(node, value=items)
