"""Which columns a template needs, read from its syntax tree without rendering it.

Rule: err towards more. A column that the tree cannot name (`row[key]`, a loop over `row`) sets `whole_row`.

Strategy: jinja2.meta says which names are free, loops and `set` considered; a walk over the tree adds what it does not
say: which of them are guarded against being missing, and which columns are reached through `row`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jinja2 import meta, nodes

from runner.template.sandbox import BUILTINS

ROW = "row"


@dataclass(frozen=True, slots=True)
class Uses:
    """What one template takes from outside."""

    names: frozenset[str]  #: free names: columns, vars and built-ins alike
    row_columns: frozenset[str]  #: columns reached as row["…"], row.x or row.get("…")
    whole_row: bool  #: `row` is used in a way that names no column
    guarded: frozenset[str]  #: of all these, the ones that the template expects to be missing at times
    called: frozenset[str]  #: built-in names that are called


@dataclass(frozen=True, slots=True)
class _Mention:
    """One place of the tree where a name from outside stands. `name` None: the row itself."""

    name: str | None
    by_row: bool
    guarded: bool
    called: bool = False


def uses(tree: nodes.Template) -> Uses:
    free = meta.find_undeclared_variables(tree)
    mentions = [m for m in _mentions(tree, guarded=False) if m.by_row or m.name in free]
    # A name that is both the row and a loop's own variable in one template cannot be told apart by name alone.
    rebound = any(node.name == ROW and node.ctx != "load" for node in tree.find_all(nodes.Name))
    through_row = [m for m in mentions if m.by_row] if ROW in free else []
    columns = {m.name for m in through_row if m.name is not None and not rebound}
    return Uses(
        names=frozenset(free),
        row_columns=frozenset(columns),
        whole_row=bool(through_row) and (rebound or any(m.name is None for m in through_row)),
        guarded=frozenset(m.name for m in mentions if m.guarded and m.name is not None),
        called=frozenset(m.name for m in mentions if m.called and m.name is not None),
    )


def _mentions(node: nodes.Node, guarded: bool) -> Iterator[_Mention]:
    find = _FINDERS.get(type(node))
    mention = find(node, guarded) if find else None
    if mention is not None:
        yield mention
    subject = getattr(node, "node", None)
    for child in node.iter_child_nodes():
        # A mention has consumed the node that it starts from: the `row` of row.title is not the whole row.
        if mention is None or child is not subject:
            yield from _mentions(child, child is subject and _guards(node))


def _guards(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Filter):
        return node.name in {"default", "d"}
    return isinstance(node, nodes.Test) and node.name in {"defined", "undefined"}


def _name(node: nodes.Name, guarded: bool) -> _Mention | None:
    if node.ctx != "load":
        return None
    return _Mention(None, True, guarded) if node.name == ROW else _Mention(node.name, False, guarded)


def _subscript(node: nodes.Getitem, guarded: bool) -> _Mention | None:
    key = node.arg.value if isinstance(node.arg, nodes.Const) else None
    return _Mention(key, True, guarded) if _is_row(node.node) and isinstance(key, str) else None


def _attribute(node: nodes.Getattr, guarded: bool) -> _Mention | None:
    # Jinja looks for an attribute before it looks for a key: row.items is the method of the mapping.
    return _Mention(node.attr, True, guarded) if _is_row(node.node) and not hasattr(dict, node.attr) else None


def _call(node: nodes.Call, guarded: bool) -> _Mention | None:
    callee = node.node
    if isinstance(callee, nodes.Name) and callee.name in BUILTINS:
        return _Mention(callee.name, False, guarded, called=True)
    key = node.args[0].value if node.args and isinstance(node.args[0], nodes.Const) else None
    gets = isinstance(callee, nodes.Getattr) and callee.attr == "get" and _is_row(callee.node)
    return _Mention(key, True, True) if gets and isinstance(key, str) else None


def _is_row(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == ROW


_FINDERS: dict[type[nodes.Node], Callable[..., _Mention | None]] = {
    nodes.Name: _name,
    nodes.Getitem: _subscript,
    nodes.Getattr: _attribute,
    nodes.Call: _call,
}
