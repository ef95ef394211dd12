"""The classifier keeps scikit-learn's rules, and is the adaptation that the same rows make."""

import pickle
import re

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import mptune.stages.classifier
from mptune.answers.prediction import Predictor
from mptune.config import AdaptConfig
from mptune.errors import BackboneMismatch
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.adaptation import adapt
from mptune.stages.classifier import PromptClassifier
from mptune.stages.ensemble import adapt_with_unlabelled
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task
from support.models import make_backbone
from support.prompts import random_prompt

TEXTS = [f"{word} {n}" for n in range(6) for word in ("good day", "bad day")]
LABELS = ["glad", "sad"] * 6
TASK = Task.read({"name": "texts", "template": "which? {text}", "verbalizer": {"glad": "good", "sad": "bad"}}, "task")


@pytest.fixture
def source(backbone, monkeypatch):
    """A multitask prompt, with its backbone in memory."""
    monkeypatch.setattr(mptune.stages.classifier, "_loaded", lambda config: backbone)
    return random_prompt(backbone, [TASK])


@pytest.fixture
def classifier(source):
    words = {"glad": "good", "sad": "bad"}
    return PromptClassifier(source, template="which? {text}", words=words, steps=3, max_input_tokens=16)


def test_it_learns_what_adapting_to_the_same_rows_learns(backbone, source, classifier):
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    chosen = {"steps": 3, "shared_lr": 0.3, "task_lr": 0.1, "batch_size": 4, "max_input_tokens": 16}
    config = AdaptConfig(**chosen, seed=2, validation_shots=0)
    adapted = adapt(source, TaskRows.from_rows(rows, TASK, hold_out=False), backbone, config)
    classifier.set_params(**chosen, random_state=2)
    assert classifier.fit(TEXTS, LABELS) is classifier
    assert classifier.prompt_.digest() == adapted.digest()
    found = Predictor(backbone, [adapted]).predict([{"text": text} for text in TEXTS])
    assert list(classifier.classes_) == ["glad", "sad"]
    expected = [[each.probabilities["good"], each.probabilities["bad"]] for each in found]
    assert classifier.predict_proba(TEXTS) == pytest.approx(np.array(expected))
    assert list(classifier.predict(TEXTS)) == [each.label for each in found]


def test_texts_without_labels_teach_it_too(backbone, source, classifier):
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    more = [f"{word} night" for word in ("good", "bad", "long")]
    config = AdaptConfig(steps=3, validation_shots=0, max_input_tokens=16)
    table = TaskRows.from_rows(rows, TASK, unlabelled=[{"text": text} for text in more], hold_out=False)
    adapted = adapt_with_unlabelled(source, table, backbone, config)
    assert classifier.fit(TEXTS, LABELS, unlabelled=more).prompt_.digest() == adapted.digest()


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable", "check_parameters_default_constructible", "check_no_attributes_set_in_init",
        "check_get_params_invariance", "check_set_params", "check_estimator_repr", "check_mixin_order",
        "check_valid_tag_types", "check_estimator_tags_renamed",
    ],
)  # fmt: skip
def test_it_passes_the_checks_of_scikit_learn_that_are_not_of_numbers(check):
    getattr(estimator_checks, check)("PromptClassifier", PromptClassifier())


def test_it_is_cloned_searched_validated_and_takes_part_in_pipelines(classifier):
    # a real search: two settings, two folds
    search = GridSearchCV(classifier, {"steps": [0, 2]}, cv=2, scoring="neg_log_loss").fit(TEXTS, LABELS)
    assert len(search.cv_results_["mean_test_score"]) == 2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(cross_val_score(clone(classifier), np.array(TEXTS), np.array(LABELS), cv=3)) == 3
    lowered = make_pipeline(FunctionTransformer(lambda texts: [text.lower() for text in texts]), classifier)
    assert set(lowered.fit(TEXTS, LABELS).predict(["GOOD DAY"])) <= {"glad", "sad"}


def test_a_fitted_one_is_pickled_and_answers_the_same_without_the_backbone_in_the_file(classifier):
    classifier.fit(TEXTS, LABELS)
    stored = pickle.dumps(classifier)
    assert len(stored) < 100_000
    again = pickle.loads(stored)
    assert (again.predict_proba(TEXTS) == classifier.predict_proba(TEXTS)).all()


@pytest.mark.parametrize("labels", [[0, 1] * 6, np.array([0, 1] * 6), pandas.Series([False, True] * 6), [2.0, 3.0] * 6])
def test_classes_come_back_as_what_they_were(source, labels):
    found = PromptClassifier(
        source,
        steps=0,
        template="which? {text}",
        words=dict(zip(np.unique(labels).tolist(), ("good", "bad"), strict=True)),
    )
    predicted = found.fit(TEXTS, labels).predict(pandas.Series(TEXTS))
    assert predicted.dtype == np.unique(labels).dtype
    assert set(predicted) <= set(labels)


def test_a_table_of_one_column_is_its_texts_and_of_more_is_refused(classifier):
    frame = pandas.DataFrame({"text": TEXTS, "n": range(len(TEXTS))})
    classifier.fit(frame[["text"]], LABELS)
    assert (classifier.predict_proba(frame[["text"]]) == classifier.predict_proba(TEXTS)).all()
    assert (classifier.predict_proba(np.array(TEXTS)[:, None]) == classifier.predict_proba(TEXTS)).all()
    with pytest.raises(ValueError, match="wants one column of texts; got a table with 2, pass the column alone"):
        classifier.predict(frame)


def test_a_seed_may_be_a_generator_and_equal_seeds_learn_equally(source, classifier):
    first, same, other = (
        clone(classifier).set_params(random_state=seed).fit(TEXTS, LABELS).prompt_.digest()
        for seed in (np.random.RandomState(3), np.random.RandomState(3), 4)
    )
    assert first == same != other


@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        ("a text", ["a"], "wants a list of texts; got str"),
        ([], [], "wants a list of texts; got none"),
        (["a", None], ["a", "b"], "wants a list of texts; number 2 is None"),
        (["a", ["b"]], ["a", "b"], "number 2 is ['b']"),
        (["a", "b"], ["a"], "inconsistent numbers of samples: [2, 1]"),
        (["a", "b"], ["a", "a"], "two classes or more; got one class, 'a'"),
        (["a", "b"], ["1", "1.0"], "classes are known by what they read, each by another; got ['1', '1.0']"),
        (["a", "b"], [0.5, 1.7], "continuous"),
        *(
            (
                ["a", "b", "c"],
                ["x", gap, "y"],
                "Input y contains NaN: text number 2 has no class; fill it, or leave the text out",
            )
            for gap in (None, float("nan"), pandas.NA)
        ),
        (["a", "b"], np.array([0, np.nan]), "Input y contains NaN: text number 2 has no class"),
        (["a", "b"], ["glad", "mad"], "words lacks the class 'mad'; it has glad, sad"),
    ],
)
def test_what_cannot_be_learnt_is_a_value_error_that_says_why(classifier, texts, labels, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        classifier.fit(texts, labels)


def test_it_answers_nothing_before_it_has_learnt(classifier):
    with pytest.raises(NotFittedError):
        classifier.predict(TEXTS)


def test_a_source_of_another_model_is_refused(source):
    other = random_prompt(make_backbone("t5", seed=1), [TASK])
    with pytest.raises(BackboneMismatch):
        PromptClassifier(other, steps=0, template="which? {text}").fit(TEXTS, LABELS)


@pytest.mark.embedded
def test_without_settings_it_learns_from_a_few_texts_what_a_topic_is(tmp_path):
    texts = [
        "the parcel did not come",
        "where is my order",
        "the courier lost my box",
        "delivery took three weeks",
        "the bill is wrong",
        "I was charged twice",
        "please refund the invoice",
        "the price on the receipt",
    ]
    found = PromptClassifier(steps=20).fit(texts, ["delivery"] * 4 + ["payment"] * 4)
    assert list(found.predict(["my package is lost", "I paid too much"])) == ["delivery", "payment"]
    found.prompt_.save_pretrained(tmp_path / "prompt")
    assert MultitaskPrompt.from_pretrained(tmp_path / "prompt").tasks[0].label_words == ("delivery", "payment")
