"""CIDEr-D against its definition, worked out by hand."""

import math
import random

import pytest

from mptune.answers.cider import cider_d


def scores(*rows):
    """The scores of (answer, references) given as texts."""
    return cider_d([answer.split() for answer, *_ in rows], [[r.split() for r in right] for _, *right in rows])


def test_the_right_text_of_four_words_or_more_scores_ten():
    assert scores(("a b c d", "a b c d"), ("e f g h i", "e f g h i")) == pytest.approx([10, 10])


def test_orders_for_which_a_text_is_too_short_give_nothing():
    assert scores(("a b", "a b"), ("c", "c")) == pytest.approx([5, 2.5])


def test_an_answer_is_not_paid_for_saying_a_word_more_often():
    # tf-idf 2w of "a" against w of "a" and of "x": min(2w, w) w / (2w * w sqrt 2), in one of four orders.
    assert scores(("a a", "a x"), ("c d", "c d"))[0] == pytest.approx(10 / (2 * math.sqrt(2)) / 4)
    # Without the clipping the two would be alike.
    assert scores(("a a", "a a"), ("c d", "c d"))[0] == pytest.approx(5)


def test_lengths_that_differ_are_paid_for():
    # Cosines 2 / sqrt(6 * 2) of words and 1 / sqrt(5) of pairs; six words stand for two.
    wanted = 10 * math.exp(-(4**2) / 72) * (2 / math.sqrt(12) + 1 / math.sqrt(5)) / 4
    assert scores(("a b c d e f", "a b"), ("u v", "u v"))[0] == pytest.approx(wanted)


def test_words_weigh_by_how_few_rows_have_them():
    # "a" stands in two of three rows, "b" and "c" in one: log 3/2 and log 3. Pairs are all different.
    common, rare = math.log(3 / 2), math.log(3)
    ours, right = (common, rare), (common, rare)
    wanted = 10 * common**2 / (math.hypot(*ours) * math.hypot(*right)) / 4
    assert scores(("a b", "a c"), ("a d", "a d b"), ("e", "e"))[0] == pytest.approx(wanted)


def test_a_word_of_every_row_weighs_nothing():
    assert scores(("the", "the end"), ("the", "the sea"))[0] == 0
    assert scores(("a b c d", "a b c d")) == [0]


def test_the_references_of_a_row_are_one_document_and_count_alike():
    # Said in two references of one row, "a" is still in one row of two.
    one, two = scores(("a b c d", "a b c d", "u v w x"), ("e f", "e f")), scores(("a b c d", "a b c d"), ("e f", "e f"))
    assert one[0] == pytest.approx(two[0] / 2)
    assert scores(("a b c d", "a b c d", "a b c d"), ("e f", "e f")) == pytest.approx(two)


def test_scores_lie_between_nothing_and_ten_and_follow_their_rows():
    draw = random.Random(0)
    rows = [tuple(" ".join(draw.choices("abcdefgh", k=draw.randint(0, 7))) for _ in range(3)) for _ in range(40)]
    found = scores(*rows)
    assert all(0 <= s <= 10 for s in found)
    assert scores(*reversed(rows)) == pytest.approx(found[::-1])


def test_nothing_scores_nothing():
    assert cider_d([], []) == []
    assert scores(("", "a b"), ("x", "c d")) == [0, 0]
