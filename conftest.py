"""For the tests of all distributions."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The same examples on every run, and no deadline: machines are slow and busy.
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let studies run as long as they need; every other test that hangs is ended (``timeout`` in pyproject.toml)."""
    for item in items:
        if item.get_closest_marker("study") is not None:
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A job that a shell started in the background ignores Ctrl-C, and tests of Ctrl-C would wait for ever."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
