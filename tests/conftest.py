"""What all tests share."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from thorough import THOROUGH

#: The same examples in every run, so that what fails once fails again; others each time with THOROUGH=1. A machine that
#: is busy says nothing against a test.
settings.register_profile(
    "ours", deadline=None, derandomize=not THOROUGH, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ours")

# What a shell starts in the background ignores Ctrl-C, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n` the tests of a file stay together: they share what took long to make."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # those that wait come first, those that only reckon fill the end
    return LoadFileScheduling(config, log)
