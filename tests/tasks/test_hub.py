"""Without a network what is missing is said at once, and nothing is tried again."""

import logging
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from mptune.tasks import hub


class Session:
    """Counts what is asked of the hub, and answers with an error where one is given."""

    def __init__(self, error=None):
        self.error, self.asked = error, []

    def head(self, address, timeout):
        self.asked.append((address, timeout))
        if self.error:
            raise self.error


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.hub_answers.cache_clear()
    yield
    hub.hub_answers.cache_clear()


@pytest.mark.parametrize(("error", "answers"), [(None, True), (OSError("no name"), False)])
def test_the_hub_is_asked_once_and_briefly(monkeypatch, error, answers):
    session = Session(error)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: session)
    assert [hub.hub_answers() for _ in range(3)] == [answers] * 3
    assert session.asked == [(constants.ENDPOINT, 2.0)]
    assert constants.HF_HUB_OFFLINE is not answers


def test_nothing_is_asked_where_the_environment_forbids_it(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: pytest.fail("it was asked"))
    assert not hub.hub_answers()


def test_its_warnings_are_printed_once(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    logging.getLogger("huggingface_hub").addHandler(logging.StreamHandler())
    hub.hub_answers()
    assert logging.getLogger("huggingface_hub").handlers == []


@pytest.mark.parametrize("plan", [False, True])
def test_a_paper_recipe_without_a_network_names_every_task_and_what_would_supply_it(cli, monkeypatch, tmp_path, plan):
    import datasets

    asked, load = [], datasets.load_dataset
    session = Session(OSError("no name"))
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: session)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **named: asked.append(given) or load(*given, **named))
    recipe = Path(__file__).parents[2] / "recipes/paper/superglue.yaml"
    code, shown, err = cli("bench", recipe, *["--plan"] * plan, "--out", tmp_path / "out")
    assert code == (0 if plan else 2)  # what is published is enough to count runs and steps
    said = shown + err
    assert "nyu-mll/glue/mnli/train cannot be loaded from the hub (which cannot be reached, and no copy" in said
    assert (
        "put mnli.train.jsonl into a folder and name that: --data DIR of a command, the data: line of a recipe" in said
    )
    assert len({given[:2] for given in asked}) > 6  # all tasks, and not the first alone
    assert len(session.asked) == 1
