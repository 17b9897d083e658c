"""An endpoint and a house for each test; nothing that was started outlives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from echo import Echo
from house import House


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as echo:
        yield echo


@pytest.fixture
def build(tmp_path: Path, echo: Echo) -> Iterator[Callable[..., House]]:
    """`build(rows=40, concurrency=8)`: a house at the test's own endpoint."""
    built: list[House] = []

    def make(**settings: Any) -> House:
        house = House(tmp_path / f"house-{len(built)}", echo, **settings)
        built.append(house)
        return house

    yield make
    for house in built:
        house.close()
