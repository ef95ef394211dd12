"""Metrics against values computed by hand."""

import warnings

import pytest

from mptune.metrics import Score, constant_answer, score
from mptune.tasks import METRICS, Example, Task

YES_NO = Task(name="yes-no", template="{text}", verbalizer={"0": "no", "1": "yes"})
THREE = Task(name="three", template="{text}", verbalizer={"0": "red", "1": "green", "2": "blue"})
FREE = Task(name="free", template="{text}", target="{answer}")


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def examples_of(*targets: str) -> list[Example]:
    return [Example("any", i, "text", target, None, (target,)) for i, target in enumerate(targets)]


def value(metric: str, targets: str, answers: str, task: Task = YES_NO) -> float:
    """The metric of space-separated label words."""
    task = task.model_copy(update={"metrics": (metric,)})
    (only,) = score(task, "test", examples_of(*targets.split()), answers.split())
    return only.value


def squad(metric: str, *cases: tuple[str, tuple[str, ...]]) -> float:
    """The metric of answers, each with the right ones."""
    examples = [Example("free", i, "text", right[0], None, right) for i, (_, right) in enumerate(cases)]
    (only,) = score(FREE.model_copy(update={"metrics": (metric,)}), "test", examples, [answer for answer, _ in cases])
    return only.value


def test_scores_come_in_the_tasks_order_and_say_what_they_are_of():
    task = YES_NO.model_copy(update={"metrics": ("f1", "accuracy")})
    found = score(task, "validation", examples_of("yes", "no"), ["yes", "yes"])
    assert [s.metric for s in found] == ["f1", "accuracy"]
    assert found[1] == Score("yes-no", "validation", "accuracy", 50.0, 2)
    assert found[1].as_dict() == {
        "task": "yes-no", "split": "validation", "metric": "accuracy", "value": 50.0, "examples": 2,
    }  # fmt: skip


def test_every_metric_a_task_may_name_can_be_computed():
    task = YES_NO.model_copy(update={"metrics": METRICS})
    found = score(task, "test", examples_of("yes", "no", "no"), ["yes", "no", "no"])
    assert [s.metric for s in found] == list(METRICS)
    assert [s.value for s in found] == pytest.approx([100.0] * len(METRICS))


def test_accuracy_is_the_share_of_right_answers():
    assert value("accuracy", "yes yes no no", "yes no no no") == 75
    assert value("accuracy", "red green blue", "blue green red", THREE) == pytest.approx(100 / 3)


def test_f1_is_that_of_the_last_label():
    # yes: 2 right, 1 too many, 1 missed; precision and recall are 2/3.
    assert value("f1", "yes yes yes no no", "yes yes no yes no") == pytest.approx(200 / 3)
    # 2 right, none too many, 2 missed: precision 1, recall 1/2.
    assert value("f1", "yes yes yes yes no", "yes yes no no no") == pytest.approx(200 / 3)
    # Right about every no and no yes.
    assert value("f1", "no no yes", "no no no") == 0


def test_macro_f1_is_the_mean_over_the_labels():
    # yes as above 2/3; no: 1 right, 1 too many, 1 missed, 1/2.
    assert value("f1_macro", "yes yes yes no no", "yes yes no yes no") == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    # A label that is neither there nor answered counts as zero: the mean is always over all labels.
    assert value("f1_macro", "red green", "red green", THREE) == pytest.approx(200 / 3)


def test_matthews_is_the_correlation_of_two_classes():
    # TP 2, FP 1, FN 1, TN 1: (2*1 - 1*1) / sqrt(3 * 3 * 2 * 2).
    assert value("matthews", "yes yes yes no no", "yes yes no yes no") == pytest.approx(100 / 6)
    assert value("matthews", "yes no yes no", "yes no yes no") == 100
    assert value("matthews", "yes no yes no", "no yes no yes") == -100


@pytest.mark.parametrize(
    ("targets", "answers"),
    [
        pytest.param("yes no yes", "yes yes yes", id="always one label"),
        pytest.param("yes yes yes", "yes yes yes", id="one label, and rightly so"),
        pytest.param("yes yes yes", "no no no", id="one label, and always the other"),
        pytest.param("yes yes yes", "yes no yes", id="the rows have one label"),
        pytest.param("yes no yes", "eh hm eh!", id="never a label word"),
        pytest.param("yes", "yes", id="a single row"),
    ],
)
def test_matthews_of_a_constant_is_zero(targets, answers):
    assert value("matthews", targets, answers) == 0


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        pytest.param("accuracy", 50.0, id="accuracy"),
        pytest.param("f1", 200 / 3, id="f1: the row is missed, and not a yes too many"),
        pytest.param("f1_macro", 200 / 3, id="f1_macro: no class of its own in the mean"),
        # A third class: 4 rows, 2 right; targets 2, 2; answers 1, 1, 2. (2*4 - (2*1 + 2*1)) / sqrt((16-6) * (16-8)).
        pytest.param("matthews", 100 * 4 / 80**0.5, id="matthews"),
    ],
)
def test_an_answer_that_is_no_label_word_is_wrong(metric, wanted):
    assert value(metric, "yes yes no no", "yes maybe no YES") == pytest.approx(wanted)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("answer", ["", " ", "yes ", "0", "</s>", "ja 是"])
def test_no_answer_is_so_odd_that_a_metric_fails(metric, answer):
    task = YES_NO.model_copy(update={"metrics": (metric,)})
    (only,) = score(task, "test", examples_of("yes", "no"), [answer, answer])
    assert -100 <= only.value <= 50  # never more than a right answer to one of the two


def test_every_example_needs_an_answer():
    with pytest.raises(ValueError, match="shorter"):
        score(YES_NO, "test", examples_of("yes", "no"), ["yes"])


def test_exact_match_takes_any_of_the_right_answers():
    assert squad("exact_match", ("Paris", ("Rome", "Paris")), ("Rome", ("Oslo", "Bern"))) == 50


def test_squad_scores_ignore_case_punctuation_articles_and_spaces():
    for metric in ("exact_match", "squad_f1"):
        assert squad(metric, ("The  green, green Hill!", ("a green green hill",))) == 100
        assert squad(metric, ("theatre", ("atre",))) == 0  # an article is a word, not a part of one


def test_squad_f1_is_the_overlap_of_words_with_the_best_right_answer():
    # {black, cat, sat} and {black, cat}: precision 2/3, recall 1, F1 4/5; the other right answer shares nothing.
    assert squad("squad_f1", ("the black cat sat", ("dog", "black cat"))) == pytest.approx(80)
    # Repeated words count as often as both have them: {far, far} and {far, off}: 1/2 and 1/2.
    assert squad("squad_f1", ("far far", ("far off",))) == pytest.approx(50)
    assert squad("squad_f1", ("the black cat sat", ("black cat",)), ("no", ("yes",))) == pytest.approx(40)
    assert squad("exact_match", ("the black cat sat", ("black cat",))) == 0


def test_an_empty_answer_to_a_question_is_wrong():
    assert squad("squad_f1", ("", ("cat",))) == 0
    assert squad("exact_match", ("", ("cat",))) == 0


def test_free_text_is_accurate_where_it_is_the_target_itself():
    task = FREE.model_copy(update={"metrics": ("accuracy",)})
    (only,) = score(task, "test", examples_of("a cat", "a dog"), ["a cat", "dog"])
    assert only.value == 50


def test_the_constant_answer_is_the_commonest_target_and_of_equals_the_first():
    assert constant_answer(YES_NO, examples_of("no", "yes", "yes")) == "yes"
    assert constant_answer(YES_NO, examples_of("no", "yes", "yes", "no")) == "no"


def test_no_metric_flatters_the_constant_answer():
    examples = examples_of("no", "no", "no", "yes")
    task = YES_NO.model_copy(update={"metrics": ("accuracy", "f1_macro", "matthews")})
    constant = [constant_answer(task, examples)] * 4
    # F1 of no: precision 3/4, recall 1, 6/7; of yes: 0.
    assert [s.value for s in score(task, "test", examples, constant)] == pytest.approx([75, 300 / 7, 0])
