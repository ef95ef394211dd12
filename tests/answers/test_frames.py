"""A table that a program holds comes back with answers beside its rows."""

import datasets
import pandas
import pytest

from mptune.answers.prediction import Predictor
from mptune.errors import DataError
from support.prompts import random_prompt
from support.toys import make_task, toy_rows


@pytest.fixture
def predictor(backbone, tmp_path):
    return Predictor(backbone, [random_prompt(backbone, [make_task(tmp_path, "mood")])])


def rows(count=5):
    return [{"text": row["text"], "n": n} for n, row in enumerate(toy_rows("good", "bad", count))]


def test_a_dataframe_keeps_its_index_and_its_columns_and_is_itself_left_alone(predictor):
    frame = pandas.DataFrame(rows()).set_index(pandas.Index(list("vwxyz")))
    before = frame.copy()
    answered = predictor.predict(frame)
    expected = predictor.predict(rows())
    pandas.testing.assert_frame_equal(frame, before)
    pandas.testing.assert_frame_equal(answered[["text", "n"]], before)
    assert list(answered["answer"]) == [each.answer for each in expected]
    assert list(answered["confidence"]) == pytest.approx([max(each.probabilities.values()) for each in expected])


def test_a_data_set_keeps_its_columns_and_their_types(predictor):
    held = datasets.Dataset.from_list(rows())
    answered = predictor.predict(held)
    assert answered.column_names == ["text", "n", "answer", "confidence"]
    assert answered.remove_columns(["answer", "confidence"]).features == held.features
    assert answered["answer"][:] == [each.answer for each in predictor.predict(rows())]


def test_columns_of_these_names_are_not_written_over(predictor):
    answered = predictor.predict(pandas.DataFrame(rows()).assign(answer="mine"))
    assert list(answered.columns) == ["text", "n", "answer", "answer (mptune)", "confidence"]
    assert set(answered["answer"]) == {"mine"}


def test_rows_that_cannot_be_answered_are_named(predictor):
    with pytest.raises(DataError, match="row 2: no field 'text'"):
        predictor.predict(pandas.DataFrame({"text": ["a", None]}))
