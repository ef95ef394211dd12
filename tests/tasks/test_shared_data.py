"""Real rows, where they stand beside the project: every data set loads, renders, trains two steps and scores.

The rows are looked for in ``../shared/data``, or in the folder that MPTUNE_SHARED_DATA names.
"""

import gzip
import itertools
import logging
import os
import re
from pathlib import Path

import pytest

from mptune.answers.evaluation import evaluate
from mptune.config import EvaluateConfig, TeachConfig
from mptune.stages.teachers import teach
from mptune.tasks.data import load_data
from mptune.tasks.registry import get_task, paper_tasks
from mptune.tasks.task import PROTOCOLS, SPLITS
from support.models import make_backbone

DATA = Path(os.environ.get("MPTUNE_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
PRESENT = sorted(name for name in paper_tasks() if (DATA / f"{name}.train.jsonl.gz").is_file())
BOTH = list(itertools.product(PRESENT or ["nothing"], PROTOCOLS))
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not PRESENT, reason=f"no real rows in {DATA}; MPTUNE_SHARED_DATA names another folder"),
]

# Validation and test rows under the paper's protocol, as logs of later papers count them.
HALVES = {
    "stsb": (750, 750), "mrpc": (204, 204), "rte": (138, 139), "cola": (521, 522), "multirc": (2424, 2424),
    "wic": (319, 319), "wsc": (52, 52), "cb": (28, 28),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _only_errors(caplog):
    caplog.set_level(logging.ERROR)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A folder with the first rows of every file."""
    folder = tmp_path_factory.mktemp("few")
    for file in DATA.glob("*.jsonl.gz"):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            (folder / file.name.removesuffix(".gz")).write_text("".join(itertools.islice(lines, 60)), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("name", "protocol"), BOTH)
def test_every_real_row_is_read_and_rendered(name, protocol):
    task = get_task(f"{name}@{protocol}")
    data = load_data(task, SPLITS, DATA)
    assert min(len(data.train), len(data.validation), len(data.test)) > 0
    every = [*data.train, *data.validation, *data.test]
    assert all(e.input.strip() and e.target.strip() and all(e.references) for e in every)
    if task.verbalizer:
        assert {e.target for e in data.test} == set(task.label_words)
    if protocol == "paper" and name in HALVES:
        assert (len(data.validation), len(data.test)) == HALVES[name]


@pytest.mark.parametrize(("name", "protocol"), BOTH)
def test_every_real_data_set_trains_two_steps_and_scores(name, protocol, few):
    backbone, task = make_backbone("t5"), get_task(f"{name}@{protocol}")
    config = TeachConfig(
        prompt_length=2, steps=2, batch_size=2, validate_every=2, validation_rows=4, max_target_tokens=3
    )
    prompt = teach(task, backbone, config, data_dir=few)
    scores = evaluate(
        prompt, task, backbone, split="test", data_dir=few, config=EvaluateConfig(rows=6, max_target_tokens=3)
    )
    assert [s.metric for s in scores][: len(task.metrics)] == list(task.metrics)


@pytest.mark.skipif("wsc" not in PRESENT, reason="no rows of wsc")
def test_both_spans_of_every_real_row_are_marked():
    data = load_data(get_task("wsc@paper"), ["train", "validation", "test"], DATA)
    for e in (*data.train, *data.validation, *data.test):
        assert re.search(r"\* .+ \*", e.input, re.DOTALL), e.input
        assert re.search(r"# .+ #", e.input), e.input


@pytest.mark.skipif("web_nlg" not in PRESENT, reason="no rows of web_nlg")
def test_the_test_rows_of_web_nlg_are_971_of_seen_categories_and_891_of_others():
    test = load_data(get_task("web_nlg"), ["test"], DATA).test
    assert [sum(e.subset == part for e in test) for part in ("seen", "unseen")] == [971, 891]


@pytest.mark.skipif("multirc" not in PRESENT, reason="no rows of multirc")
def test_the_questions_of_multirc_are_as_many_as_their_numbers():
    test = load_data(get_task("multirc"), ["test"], DATA).test
    assert (len(test), len({e.group for e in test})) == (4848, 953)
