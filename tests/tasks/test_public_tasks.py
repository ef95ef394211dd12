"""The public data sets under both protocols, with rows written for these tests in tests/rows."""

import json
import logging
from pathlib import Path

import pytest

from mptune.answers.evaluation import evaluate
from mptune.answers.metrics import credits
from mptune.answers.prediction import Predictor
from mptune.config import EvaluateConfig, TeachConfig
from mptune.stages.teachers import teach
from mptune.tasks.data import load_data
from mptune.tasks.registry import builtin_tasks, get_task, paper_tasks
from mptune.tasks.task import PROTOCOLS, SPLITS
from support.models import make_backbone

pytestmark = pytest.mark.slow  # every data set, in both protocols

ROWS = Path(__file__).parents[1] / "rows"
RENDERED = json.loads((ROWS / "rendered.json").read_text(encoding="utf-8"))
NAMES = (
    "mnli qqp qnli sst2 stsb mrpc rte cola multirc boolq wic wsc cb nq hotpotqa searchqa newsqa winogrande yelp "
    "scitail paws e2e_nlg web_nlg squad record"
).split()
SMALL = "stsb mrpc rte cola multirc boolq wic wsc cb scitail".split()  # halves of the labelled evaluation rows


def named(name, protocol):
    """A public task under a protocol."""
    return get_task(f"{name}@{protocol}")


def first_row(name, split="train"):
    """The first of the rows written for a task."""
    return json.loads((ROWS / f"{name}.{split}.jsonl").read_text(encoding="utf-8").splitlines()[0])


def test_all_25_data_sets_of_the_paper_have_a_row_under_both_protocols():
    assert len(NAMES) == 25
    assert set(paper_tasks()) == set(NAMES) == set(RENDERED)
    assert set(NAMES) < set(builtin_tasks())
    assert {t.protocol for t in paper_tasks().values()} == {"paper"}
    assert {builtin_tasks()[n].protocol for n in NAMES} == {"recommended"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_every_data_set_reads_as_it_should(name, protocol):
    example = named(name, protocol).render(first_row(name), 1)
    assert {"input": example.input, "target": example.target} == RENDERED[name][protocol]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_loads_from_local_rows_with_every_class(name, protocol, caplog):
    caplog.set_level(logging.ERROR)
    task = named(name, protocol)
    data = load_data(task, SPLITS, ROWS)
    assert min(len(data.train), len(data.validation), len(data.test)) > 0
    if task.verbalizer:
        assert {e.target for e in data.train} == set(task.label_words)
    assert not {e.input for e in data.train} & {e.input for e in (*data.validation, *data.test)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_trains_scores_and_predicts(name, protocol, caplog):
    caplog.set_level(logging.ERROR)
    backbone, task = make_backbone("t5"), named(name, protocol)
    config = TeachConfig(prompt_length=2, steps=2, batch_size=2, validate_every=2, max_target_tokens=4)
    prompt = teach(task, backbone, config, data_dir=ROWS)
    scores = evaluate(prompt, task, backbone, split="test", data_dir=ROWS, config=EvaluateConfig(max_target_tokens=4))
    assert [s.metric for s in scores][: len(task.metrics)] == list(task.metrics)
    unlabelled = {k: v for k, v in first_row(name).items() if k not in ("label", "answer", "answers", "lex")}
    if name == "multirc":
        unlabelled["answer"] = "a crew of four"
    (said,) = Predictor(backbone, [prompt], EvaluateConfig(max_target_tokens=4)).predict([unlabelled])
    assert said.task == name


LABELS = {
    "mnli": ["yes", "maybe", "no"],  # entailment, neutral, contradiction
    "qnli": ["yes", "no"],  # entailment, not entailment
    "qqp": ["no", "yes"],
    "sst2": ["negative", "positive"],
    "rte": ["yes", "no"],  # entailment, not entailment
    "mrpc": ["no", "yes"],
    "cola": ["no", "yes"],
    "multirc": ["no", "yes"],
    "boolq": ["no", "yes"],
    "cb": ["yes", "no", "maybe"],  # entailment, contradiction, neutral
    "wic": ["no", "yes"],
    "wsc": ["no", "yes"],
    "yelp": ["negative", "positive"],
    "paws": ["no", "yes"],
}


@pytest.mark.parametrize("name", LABELS)
def test_the_label_numbers_of_public_data_are_said_by_the_right_words_and_digits(name):
    row = first_row(name)
    for protocol, words in (("recommended", LABELS[name]), ("paper", [str(i) for i in range(len(LABELS[name]))])):
        task = named(name, protocol)
        assert [task.render({**row, "label": label}).target for label in range(len(words))] == words
        assert len(task.verbalizer) == len(words)


def test_labels_that_are_texts_are_said_by_the_right_words_and_digits():
    for name, field, said in (
        ("winogrande", "answer", {"1": ("first", "0"), "2": ("second", "1")}),
        ("scitail", "label", {"entails": ("yes", "0"), "neutral": ("no", "1")}),
    ):
        for value, words in said.items():
            row = {**first_row(name), field: value}
            assert tuple(named(name, p).render(row).target for p in PROTOCOLS) == words


@pytest.mark.parametrize("name", NAMES)
def test_the_label_words_of_a_public_task_differ_by_more_than_capitals(name):
    words = builtin_tasks()[name].label_words
    assert len({w.strip().lower() for w in words}) == len(words)


# -- the paper's protocol ---------------------------------------------------------------------------------------------


def test_the_paper_writes_labels_freely_as_bare_digits():
    for task in paper_tasks().values():
        assert task.scoring == "generation"
        assert task.label_words == tuple(str(i) for i in range(len(task.verbalizer)))
    assert {t.scoring for t in builtin_tasks().values()} == {"labels"}


def test_the_papers_lengths_are_its_own():
    longer = {"multirc": 348} | dict.fromkeys(["squad", "record", "nq", "hotpotqa", "searchqa", "newsqa"], 512)
    assert {n: t.max_input_tokens for n, t in paper_tasks().items()} == dict.fromkeys(NAMES, 256) | longer


def test_small_data_sets_are_halved_in_the_paper_and_none_is_otherwise():
    assert {n for n, t in paper_tasks().items() if t.dataset.split == "halves"} == set(SMALL)
    assert {t.dataset.split for t in builtin_tasks().values()} == {"own"}
    for name in SMALL:
        dataset = paper_tasks()[name].dataset
        assert (dataset.train, dataset.validation, dataset.test) == ("train", None, "validation")


def test_the_other_splits_of_the_paper():
    splits = {n: (t.dataset.train, t.dataset.validation, t.dataset.test) for n, t in paper_tasks().items()}
    assert splits["mnli"] == ("train", "validation_mismatched", "validation_matched")
    for name in ("qqp", "qnli", "sst2", "squad", "record", "nq", "hotpotqa", "searchqa", "newsqa", "winogrande"):
        assert splits[name] == ("train", None, "validation")  # 1,000 training rows are held out
    assert splits["yelp"] == ("train", None, "test")
    assert paper_tasks()["yelp"].dataset.train_rows == 100_000
    for name in ("paws", "e2e_nlg", "web_nlg"):
        assert splits[name] == ("train", "validation", "test")


def test_rows_in_two_splits_stay_in_training_in_the_paper_and_are_left_out_otherwise():
    drops = {n: t.dataset.overlap for n, t in paper_tasks().items()}
    assert drops == dict.fromkeys(NAMES, "keep") | dict.fromkeys(["e2e_nlg", "web_nlg"], "drop")
    assert {builtin_tasks()[n].dataset.overlap for n in NAMES} == {"drop"}


@pytest.mark.parametrize("name", SMALL)
def test_halves_meet_nowhere_and_are_all_of_the_rows(name, caplog):
    caplog.set_level(logging.ERROR)
    data = load_data(paper_tasks()[name], SPLITS, ROWS)
    assert (len(data.validation), len(data.test)) == (3, 3)
    assert {e.row for e in data.validation} | {e.row for e in data.test} == set(range(1, 7))
    assert len(data.train) == 8


def test_the_paper_judges_an_answer_by_the_first_right_one_and_the_recommended_protocol_by_any():
    row = {**first_row("squad"), "answers": {"text": ["rye", "the rye"], "answer_start": [0, 0]}}
    assert named("squad", "paper").render(row).references == ("rye",)
    assert named("squad", "recommended").render(row).references == ("rye", "the rye")


def test_similarities_are_judged_as_they_are_labelled_and_in_the_paper_as_they_are_rounded():
    row = {**first_row("stsb"), "label": 3.75}
    assert [named("stsb", p).render(row).target for p in PROTOCOLS] == ["3.8", "3.8"]
    assert [named("stsb", p).render(row).references for p in PROTOCOLS] == [("3.75",), ("3.8",)]


# -- rows that are gathered or spread ---------------------------------------------------------------------------------


def test_winogrande_shows_both_options_under_both_protocols():
    for protocol in PROTOCOLS:
        text = named("winogrande", protocol).unlabelled(first_row("winogrande")).input
        assert "jug" in text.partition("tall.")[2]
        assert "shelf" in text.partition("tall.")[2]


def test_answers_of_equal_questions_on_different_paragraphs_are_different_groups():
    data = load_data(named("multirc", "recommended"), ["train"], ROWS)
    who = [e.group for e in data.train if "Who got out?" in e.input]
    assert sorted(set(who)) == ["0-0", "1-2"]


def test_record_trains_on_every_answer_and_is_scored_against_all_of_them(caplog):
    caplog.set_level(logging.ERROR)
    data = load_data(named("record", "recommended"), ["train", "test"], ROWS)
    assert [e.target for e in data.train if e.row == 4] == ["Marta Voss", "Voss"]
    assert [e.references for e in data.test if e.row == 2] == [("Ivo Pell", "Pell")]
    assert len(data.test) == 6


def test_web_nlg_trains_on_every_text_and_scores_seen_and_unseen_categories_apart():
    task = named("web_nlg", "recommended")
    data = load_data(task, ["train", "test"], ROWS)
    assert len({e.input for e in data.train}) < len(data.train)
    assert len(data.test) == 6  # one is in the file twice, one a second time without its texts
    assert all(len(e.references) == 2 for e in data.test)
    backbone = make_backbone("t5")
    scores = evaluate(None, task, backbone, split="test", data_dir=ROWS, config=EvaluateConfig(max_target_tokens=2))
    parts = ("", "_seen", "_unseen")
    assert [s.metric for s in scores] == [f"{m}{p}" for p in parts for m in ("bleu", "meteor", "ter", "chrf")]
    assert [s.examples for s in scores] == [6] * 4 + [3] * 8


def test_e2e_is_scored_against_all_texts_of_a_meaning_and_trains_on_each():
    data = load_data(named("e2e_nlg", "recommended"), SPLITS, ROWS)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 3, 3)
    assert all(len(e.references) == 2 for e in (*data.validation, *data.test))


def test_what_rows_give_to_the_first_metric_is_known_but_for_text_and_correlations():
    for name, task in builtin_tasks().items():
        example = task.render(first_row(name)) if name in NAMES else None
        if example is not None:
            wanted = None if task.metrics[0] in ("bleu", "pearson") else [1.0]
            assert credits(task, [example], [example.target]) == wanted, name
