"""Fixtures of the tests of the stages: prompts that are only read, made once."""

import pytest

from mptune.prompts.prompt import MultitaskPrompt
from support.toys import make_tasks
from support.trained import untrained_source


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> MultitaskPrompt:
    """A multitask prompt of the three toy tasks, which differ."""
    return untrained_source(make_tasks(tmp_path_factory.mktemp("source")))
