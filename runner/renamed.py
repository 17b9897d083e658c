"""An earlier prompt over an input whose columns may have other names now.

Rule: the hash is the only proof that an answer belongs to a row: where the earlier prompt, with a column of now in the
place of one that is gone, asks what was asked then, that column is the one. Nothing is guessed from places or ids.
Strategy: every way to fill the places is tried on a sample of rows; the one that meets most requests of then is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, permutations
from typing import Any

from runner.recipe import Recipe
from runner.records import Failure, Row
from runner.template import Prompt

#: Ways that are tried: all for two columns out of ten, or one out of a hundred.
MOST_WAYS = 100


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier job's way to make requests. `gone`: the columns that its prompt reads and the input has no more."""

    recipe: Recipe
    gone: tuple[str, ...]
    candidates: tuple[str, ...]  #: the columns that it does not read

    def over(self, rows: Sequence[Row], asked: Collection[str]) -> Recipe | None:
        """The recipe over the input as it is; None when it cannot be told. rows: a sample. asked: the requests of
        then."""
        if not self.gone or not asked:
            return self.recipe
        found = [(sum(_hash(recipe, row) in asked for row in rows), recipe) for recipe in self._ways()]
        most = max(found, key=lambda way: way[0])
        return most[1] if most[0] else None

    def _ways(self) -> Iterator[Recipe]:
        yield self.recipe  # what is gone may have a default
        for names in islice(permutations(self.candidates, len(self.gone)), MOST_WAYS):
            yield _with_names(self.recipe, dict(zip(names, self.gone, strict=True)))


def earlier(prompt: Any, recipe: Recipe, columns: Sequence[str], before: Collection[str]) -> Earlier:
    """columns: of the input now; before: of the input as the run has it. New names are tried first."""
    reads = prompt.columns if isinstance(prompt, Prompt) else frozenset[str]()
    free = sorted((name for name in columns if name not in reads), key=lambda name: name in before)
    return Earlier(recipe, tuple(sorted(reads - set(columns))), tuple(free))


def _with_names(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """names: of now -> of then."""

    def render(data: Mapping[str, Any]) -> dict[str, Any] | Failure:
        return recipe.render({names.get(name, name): value for name, value in data.items()})

    columns = None if recipe.columns is None else recipe.columns - set(names.values()) | names.keys()
    return replace(recipe, render=render, columns=columns)


def _hash(recipe: Recipe, row: Row) -> str | None:
    asked = recipe.asked(row)
    return None if isinstance(asked, Failure) else asked.request.hash
