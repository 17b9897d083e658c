"""What all tests share."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n` the tests of a file stay together: they share what took long to make."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # those that wait come first, those that only reckon fill the end
    return LoadFileScheduling(config, log)
