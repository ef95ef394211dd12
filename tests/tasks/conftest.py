"""What every test of rows begins with."""

import pytest

from mptune.terminal import warn_once


@pytest.fixture(autouse=True)
def _nothing_was_said_before():
    warn_once.cache_clear()
