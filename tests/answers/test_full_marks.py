"""Full marks for right answers and less for others: every metric, in every script."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mptune.answers.metrics import score
from mptune.tasks.task import METRICS
from support.scores import FREE, THREE, correlation, examples_of, squad, text

pytestmark = pytest.mark.filterwarnings("error")  # what a library finds undefined is decided before it is asked

SCRIPTS = (
    "ab cd e", "äöß é ñ", "да не ж", "αβγ δ", "سلام عل", "नमस्ते क", "我喜欢你 是", "かなカナ", "สวัสดี", "안녕 하",
    "!?€ 😀",
    "09 1",
)  # fmt: skip
PHRASES = st.sampled_from(SCRIPTS).flatmap(
    lambda letters: st.text(letters, min_size=1, max_size=12).map(lambda t: " ".join(t.split())).filter(bool)
)
OF_CLASSES = {"f1", "f1_macro", "matthews"}
OF_NUMBERS = {"pearson", "spearman"}
OF_ANY_TEXT = sorted(set(METRICS) - OF_CLASSES - OF_NUMBERS - {"group_exact_match"})


def of_text(metric, targets, answers):
    """A metric of free texts, of which more is better."""
    (only,) = score(FREE.model_copy(update={"metrics": (metric,)}), "test", examples_of(*targets), answers)
    return -only.value if metric == "ter" else only.value


@pytest.mark.parametrize("metric", OF_ANY_TEXT)
@given(st.lists(PHRASES, min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_an_answer_that_is_the_right_one_scores_most_in_every_script(metric, targets, data):
    perfect = of_text(metric, targets, targets)
    own_scale = metric in ("nist", "meteor", "cider")
    assert own_scale or perfect == pytest.approx(0 if metric == "ter" else 100)
    others = data.draw(st.lists(PHRASES, min_size=len(targets), max_size=len(targets)))
    assert of_text(metric, targets, others) <= perfect + 1e-6


@pytest.mark.parametrize("metric", sorted(set(OF_ANY_TEXT) - {"nist", "cider"}))  # of one row these two are 0
@given(st.lists(PHRASES, min_size=1, max_size=4), st.integers(0, 3), st.sampled_from(["", " ", "qqq www", "\ufffd"]))
@settings(max_examples=60, deadline=None)
def test_a_wrong_or_unreadable_answer_scores_less_in_every_script(metric, targets, row, wrong):
    answers = [*targets]
    answers[row % len(targets)] = wrong
    assert of_text(metric, targets, answers) < of_text(metric, targets, targets)


@pytest.mark.parametrize("metric", sorted(OF_CLASSES | {"accuracy", "group_exact_match"}))
@given(st.lists(st.sampled_from(THREE.label_words), min_size=1, max_size=5), st.integers(0, 4), st.booleans())
def test_right_classes_score_most_whichever_there_are_and_wrong_ones_less(metric, targets, row, readable):
    task = THREE.model_copy(update={"metrics": (metric,), "group": "{text}"})
    answers = [*targets]
    answers[row % len(targets)] = "green" if readable and targets[row % len(targets)] != "green" else "eh"
    right, wrong = (score(task, "test", examples_of(*targets), said)[0].value for said in (targets, answers))
    assert right == pytest.approx(100)
    assert wrong < right or (metric == "f1" and "blue" in targets)  # F1 of blue alone knows no other mistakes


@pytest.mark.parametrize("metric", sorted(OF_NUMBERS))
@given(st.lists(st.integers(-3, 5), min_size=1, max_size=5), st.integers(0, 4))
def test_right_numbers_score_most_and_silence_less_on_any_scale(metric, numbers, row):
    right = [str(n) for n in numbers]
    silent = [*right[: row % len(right)], "eh", *right[row % len(right) + 1 :]]
    assert correlation(metric, " ".join(right), " ".join(right)) == pytest.approx(100)
    # Where the least of all is the silent one, it stays the least.
    least = numbers[row % len(right)] == min(numbers) and len(numbers) > 1
    assert correlation(metric, " ".join(right), " ".join(silent)) < 100 or least


def test_words_of_other_scripts_are_told_apart():
    assert text("rouge_l", ("der Äl", "der Öl")) == pytest.approx(50)
    assert text("rouge_l", ("добрый день", "добрый вечер")) == pytest.approx(50)
    assert text("rouge_l", ("我喜欢你", "我喜欢他")) == pytest.approx(75)
    assert (
        0
        < text("bleu", ("我喜欢你们", "我喜欢他们"))
        < text("bleu", ("我喜欢你们", "我喜欢你们"))
        == pytest.approx(100)
    )


def test_a_letter_that_is_an_article_is_an_answer_and_silence_is_none():
    for metric in ("exact_match", "squad_f1"):
        assert squad(metric, ("A.", ("a",))) == 100
        assert squad(metric, ("", ("A",))) == squad(metric, ("an", ("A",))) == squad(metric, ("?", ("!",))) == 0
