"""Metrics against values computed by hand."""

import math
import random
import sys
import warnings

import pytest

from mptune.answers.metrics import Score, constant_answer, credits, score
from mptune.errors import DataError, MissingExtraError
from mptune.tasks.task import METRICS, Example, Task
from support.scores import FREE, THREE, YES_NO, correlation, examples_of, squad, text, value


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_scores_come_in_the_tasks_order_and_say_what_they_are_of():
    task = YES_NO.model_copy(update={"metrics": ("f1", "accuracy")})
    found = score(task, "validation", examples_of("yes", "no"), ["yes", "yes"])
    assert [s.metric for s in found] == ["f1", "accuracy"]
    assert found[1] == Score("yes-no", "validation", "accuracy", 50.0, 2)
    assert found[1].as_dict() == {
        "task": "yes-no", "split": "validation", "metric": "accuracy", "value": 50.0, "examples": 2,
    }  # fmt: skip


def test_every_metric_a_task_may_name_can_be_computed():
    words = [f"{i}.5" for i in range(3)]
    task = Task(name="numbers", template="{text}", verbalizer={w: w for w in words})
    found = score(task.model_copy(update={"metrics": METRICS}), "test", examples_of(*words), words)
    assert [s.metric for s in found] == list(METRICS)
    own = {"ter": 0, "nist": math.log2(3), "cider": 10 / 4, "meteor": 50}  # of texts of a single word
    assert {s.metric: s.value for s in found} == pytest.approx({m: own.get(m, 100) for m in METRICS})


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
    # A label that is neither there nor answered has no F1; one that is answered and not there has 0.
    assert value("f1_macro", "red green", "red green", THREE) == 100
    assert value("f1_macro", "red green green", "red green blue", THREE) == pytest.approx(100 * (1 + 2 / 3) / 3)


def test_matthews_is_the_correlation_of_two_classes():
    # TP 2, FP 1, FN 1, TN 1: (2*1 - 1*1) / sqrt(3 * 3 * 2 * 2).
    assert value("matthews", "yes yes yes no no", "yes yes no yes no") == pytest.approx(100 / 6)
    assert value("matthews", "yes no yes no", "yes no yes no") == 100
    assert value("matthews", "yes no yes no", "no yes no yes") == -100


@pytest.mark.parametrize(
    ("targets", "answers"),
    [
        pytest.param("yes no yes", "yes yes yes", id="always one label"),
        pytest.param("yes yes yes", "no no no", id="one label, and always the other"),
        pytest.param("yes yes yes", "yes no yes", id="the rows have one label"),
        pytest.param("yes no yes", "eh hm eh!", id="never a label word"),
        pytest.param("yes", "no", id="a single row"),
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


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"pearson", "spearman", "ter", "chrf"}))
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


# -- groups and subsets -----------------------------------------------------------------------------------------------


def grouped(*rows):
    """Examples of (group, target, answer), and the answers."""
    examples = [Example("g", i, "text", t, None, (t,), group) for i, (group, t, _) in enumerate(rows)]
    return examples, [a for *_, a in rows]


def test_a_group_is_right_where_all_its_rows_are_wherever_they_stand():
    task = YES_NO.model_copy(update={"metrics": ("group_exact_match",), "group": "{g}"})
    rows = [("a", "yes", "yes"), ("b", "no", "yes"), ("a", "no", "no"), ("b", "yes", "yes"), ("c", "no", "no")]
    for order in (rows, rows[::-1]):
        (only,) = score(task, "test", *grouped(*order))
        assert only.value == pytest.approx(200 / 3)
    (alone,) = score(task, "test", *grouped(*[(None, *rest) for _, *rest in rows]))
    assert alone.value == 80


def test_f1_over_all_answers_knows_nothing_of_groups():
    # MultiRC's F1a: 2 right yes, 1 too many, none missed.
    rows = [("a", "yes", "yes"), ("b", "no", "yes"), ("a", "no", "no"), ("b", "yes", "yes")]
    (only,) = score(YES_NO.model_copy(update={"metrics": ("f1",)}), "test", *grouped(*rows))
    assert only.value == pytest.approx(80)


def test_each_of_several_subsets_is_scored_apart_after_the_whole():
    task = YES_NO.model_copy(update={"metrics": ("accuracy", "f1"), "subset": "kind"})
    examples = [Example("s", i, "x", t, None, (t,), None, kind) for i, (t, kind) in enumerate(
        [("yes", "old"), ("no", "new"), ("yes", "old"), ("no", "old")])]  # fmt: skip
    found = score(task, "test", examples, ["yes", "yes", "no", "no"])
    assert [(s.metric, s.value, s.examples) for s in found] == [
        ("accuracy", 50, 4), ("f1", 50, 4), ("accuracy_new", 0, 1), ("f1_new", 0, 1),
        ("accuracy_old", pytest.approx(200 / 3), 3), ("f1_old", pytest.approx(200 / 3), 3),
    ]  # fmt: skip
    assert len(score(task, "test", examples[2:], ["yes", "no"])) == 2  # one subset is the whole


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_pearson_and_spearman_by_hand():
    assert correlation("pearson", "1 2 3", "1 3 2") == pytest.approx(50)
    assert correlation("spearman", "1 2 3", "1 3 2") == pytest.approx(50)
    # Deviations -1 0 1 and -3 -2 5: 8 / sqrt(2 * 38); the ranks agree.
    assert correlation("pearson", "1 2 3", "1.0 2.0 9") == pytest.approx(800 / math.sqrt(76))
    assert correlation("spearman", "1 2 3", "1.0 2.0 9") == pytest.approx(100)
    assert correlation("pearson", "0.0 2.4 5.0", "5.0 2.6 0.0") == pytest.approx(-100)


@pytest.mark.parametrize("answer", ["none", "nan", "inf", "3,8", "1-2"])
def test_an_answer_that_is_no_number_counts_as_minus_one(answer):
    # 1 -1 3 against 1 2 3: 2 / sqrt(2 * 8).
    assert correlation("pearson", "1 2 3", f"1 {answer} 3") == pytest.approx(50)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_a_correlation_with_what_does_not_vary_is_zero(metric):
    assert correlation(metric, "1 2 3", "2 2 2") == 0
    assert correlation(metric, "2 2 2", "1 2 3") == 0
    assert correlation(metric, "1", "2") == 0


def test_right_answers_that_are_no_numbers_are_told():
    with pytest.raises(DataError, match=r"row 1: a correlation wants numbers as right answers; got 'good'"):
        correlation("pearson", "1 good", "1 2")


# -- written text -----------------------------------------------------------------------------------------------------

TEXT_METRICS = ("bleu", "chrf", "ter", "nist", "meteor", "rouge_l", "cider")
LONG = ("the grey heron stood by the mill", "nobody saw the two boats leave", "rye bread is sour and dark")


def test_bleu_is_the_geometric_mean_of_four_precisions_with_a_penalty_for_brevity():
    # 5/6, 4/5, 3/4 and 2/3 of the n-grams are right: their product is 1/3.
    assert text("bleu", ("the cat sat on mats today", "the cat sat on mats now")) == pytest.approx(100 / 3**0.25)
    # All are right, but 5 words stand for 6.
    assert text("bleu", ("the cat sat on mats", "the cat sat on mats now")) == pytest.approx(100 * math.exp(-1 / 5))
    # The second reference has what the first lacks, and the right length.
    rows = ("the cat sat on mats", "the cat sat on mats and ran", "some cat sat on mats")
    assert text("bleu", rows) == pytest.approx(100)


def test_bleu_and_ter_sum_over_rows_and_are_no_means_of_rows():
    rows = [("a b c d", "a b c d"), ("a b c x y z v w", "a b c d e f g h")]
    # Unigrams 4+3 of 12, bigrams 3+2 of 10, trigrams 2+1 of 8, 1+0 of 6.
    assert text("bleu", *rows) == pytest.approx(100 * (7 / 12 * 5 / 10 * 3 / 8 * 1 / 6) ** 0.25)
    assert text("ter", *rows) == pytest.approx(500 / 12)


def test_ter_counts_edits_and_a_moved_phrase_is_one():
    assert text("ter", ("a b x d", "a b c d")) == 25
    assert text("ter", ("c d a b", "a b c d")) == 25
    assert text("ter", ("", "a b c d")) == 100
    # The nearest of the references, over their mean length of three words.
    assert text("ter", ("a b", "a b", "a b c d")) == 0
    assert text("ter", ("a x", "a b", "a b c d")) == pytest.approx(100 / 3)


def test_a_row_with_fewer_references_has_no_empty_one():
    rows = [("a b x d", "a b c d"), ("e f g h", "e f g h", "e f g i")]
    assert text("ter", *rows) == pytest.approx(100 * 1 / 8)


def test_chrf_is_of_characters():
    # "ab" and "ac": half of the letters, none of the pairs; there are no longer ones.
    assert text("chrf", ("ab", "ac")) == pytest.approx(25)


def test_nist_weighs_what_is_rare():
    # Four different words tell log2 4 each; the longer n-grams tell nothing more.
    assert text("nist", ("a b c d", "a b c d")) == pytest.approx(2)
    # "a" is three of four words: log2 4/3; "b" log2 4. Pairs: "a a" tells log2 3/2 twice, "a b" log2 3. Longer: "a a a"
    # log2 2/1, "a a b" log2 2/1; the four words nothing.
    wanted = (3 * math.log2(4 / 3) + 2) / 4 + (2 * math.log2(3 / 2) + math.log2(3)) / 3 + 2 / 2
    assert text("nist", ("a a a b", "a a a b")) == pytest.approx(wanted)
    assert text("nist", ("", "a b")) == text("nist", ("x y", "a b")) == 0


def test_meteor_is_of_words_and_stems_and_of_no_synonyms():
    # All match in one chunk: the penalty is 0.5 * (1 / matches)^3.
    assert text("meteor", ("a b c d", "a b c d")) == pytest.approx(100 * (1 - 0.5 / 64))
    assert text("meteor", ("Cats sat", "cat sat")) == pytest.approx(100 * (1 - 0.5 / 8))
    assert text("meteor", ("big", "large")) == 0
    # 2 of 2 and of 3 words: recall counts nine times; two chunks of two matches: penalty 0.5.
    assert text("meteor", ("a c", "a b c")) == pytest.approx(100 * (2 / 3) / (0.1 * 2 / 3 + 0.9) * 0.5)
    assert text("meteor", ("a b", "x y", "a b")) == pytest.approx(100 * (1 - 0.5 / 8))


def test_rouge_l_is_f1_of_the_longest_common_subsequence():
    # "the cat": 2 of 3 and 2 of 4 words.
    assert text("rouge_l", ("the cat sat", "the black cat off")) == pytest.approx(100 * 4 / 7)
    assert text("rouge_l", ("cat the", "the cat")) == pytest.approx(50)
    assert text("rouge_l", ("the cat", "a dog", "The cat.")) == 100


@pytest.mark.parametrize("metric", TEXT_METRICS)
def test_the_right_texts_are_best_and_the_order_of_rows_and_references_does_not_matter(metric):
    # The other reference is like no answer, which halves CIDEr; METEOR takes a little for each chunk.
    best = {"ter": 0, "cider": 5, "meteor": 99.8}.get(metric, 100)
    rows = [(words, words, "something else altogether") for words in LONG]
    perfect = text(metric, *rows)
    if metric != "nist":
        assert perfect == pytest.approx(best, abs=0.01)
    poor = [("nobody knows what the heron saw", *right) for _, *right in rows]
    assert (text(metric, *poor) > perfect) == (metric == "ter")
    shuffled = [(answer, *random.Random(1).sample(right, len(right))) for answer, *right in poor]
    assert text(metric, *reversed(shuffled)) == pytest.approx(text(metric, *poor))


@pytest.mark.parametrize("metric", TEXT_METRICS)
def test_texts_that_say_nothing_score_nothing(metric):
    assert text(metric, *[("", words) for words in LONG]) == (100 if metric == "ter" else 0)


@pytest.mark.parametrize("metric", sorted(set(TEXT_METRICS) - {"rouge_l"}))
def test_what_is_missing_for_written_text_says_how_to_get_it(metric, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] in ("sacrebleu", "nltk")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("sacrebleu", "nltk", "nltk.translate.nist_score", "nltk.translate.meteor_score"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError) as error:
        text(metric, ("a b", "a b"))
    assert str(error.value) == (
        "scoring written text (bleu, chrf, cider, meteor, nist, ter) needs more libraries. "
        "Install them: pip install 'mptune[nlg]'"
    )


# -- row by row -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["accuracy", "exact_match", "squad_f1", "rouge_l", "meteor"])
def test_what_rows_give_to_a_mean_is_that_mean(metric):
    task = FREE.model_copy(update={"metrics": (metric, "bleu")})
    examples, answers = examples_of("the black cat", "a dog", "rye bread"), ["black cat", "dog", "soup"]
    given = credits(task, examples, answers)
    assert all(0 <= each <= 1 for each in given)
    assert 100 * sum(given) / 3 == pytest.approx(score(task, "test", examples, answers)[0].value)


@pytest.mark.parametrize("metric", ["f1", "f1_macro", "matthews", "group_exact_match"])
def test_what_rows_give_to_a_metric_of_all_classes_is_whether_they_are_right(metric):
    task = YES_NO.model_copy(update={"metrics": (metric, "accuracy")})
    assert credits(task, examples_of("yes", "no", "no"), ["yes", "yes", "maybe"]) == [1, 0, 0]


@pytest.mark.parametrize("metric", ["bleu", "chrf", "nist", "cider", "pearson", "spearman"])
def test_rows_give_nothing_of_their_own_to_scores_of_all_text_and_to_correlations(metric):
    task = FREE.model_copy(update={"metrics": (metric, "accuracy")})
    assert credits(task, examples_of("1", "2"), ["1", "2"]) is None
