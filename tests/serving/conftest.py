"""One server for the tests that change nothing of it."""

import httpx
import pytest

from support.models import make_backbone
from support.serving import prompts_folder, serving


@pytest.fixture(scope="session")
def model():
    """A tiny T5."""
    return make_backbone("t5")


@pytest.fixture(scope="session")
def folder(model, tmp_path_factory):
    """A folder of prompts that stays as it is."""
    return prompts_folder(tmp_path_factory.mktemp("served") / "prompts", model)


@pytest.fixture(scope="module")
def served(model, folder):
    """The address of a server without keys."""
    with serving(folder, model) as (address, _, _):
        yield address


@pytest.fixture
def ask(served):
    """Ask the server; return the status and the body."""
    with httpx.Client(base_url=served, timeout=20) as client:

        def asked(method, path, body=None, **more):
            answer = client.request(method, path, json=body, **more)
            return answer.status_code, answer.json()

        yield asked
