"""A table that a program holds comes back with answers beside its rows."""

import datasets
import pandas
import pytest

from mptune.answers.prediction import Predictor
from mptune.errors import DataError, UsageError
from mptune.prompts.card import Calibration
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


@pytest.mark.parametrize("kind", [pandas.DataFrame, lambda held: datasets.Dataset.from_list(list(held))])
def test_a_threshold_adds_a_column_of_what_is_abstained(predictor, backbone, kind):
    prompt = random_prompt(backbone, predictor.tasks)
    found = Calibration(temperature=4, threshold=0.6, precision=0.9, rows=20, split="test")
    prompt.card = prompt.card.model_copy(update={"calibration": {"mood": found}})
    calibrated = Predictor(backbone, [prompt])
    answered = calibrated.predict(kind(rows()))
    assert list(answered.to_dict())[-3:] == ["answer", "confidence", "abstained"]
    assert list(answered["abstained"]) == [each.abstained for each in calibrated.predict(rows())]


def test_columns_of_these_names_are_not_written_over(predictor):
    answered = predictor.predict(pandas.DataFrame(rows()).assign(answer="mine"))
    assert list(answered.columns) == ["text", "n", "answer", "answer (mptune)", "confidence"]
    assert set(answered["answer"]) == {"mine"}


def test_rows_that_cannot_be_answered_are_named(predictor):
    with pytest.raises(DataError, match="row 2: nothing to read, text is empty; fill it, or leave the row out"):
        predictor.predict(pandas.DataFrame({"text": ["a", None]}))


@pytest.mark.parametrize("blank", [None, "", "  ", float("nan")])
@pytest.mark.parametrize("kind", [list, pandas.DataFrame])
def test_an_empty_cell_is_no_text_in_any_table(predictor, blank, kind):
    with pytest.raises(DataError, match="row 2: nothing to read, text is empty"):
        predictor.predict(kind([{"text": "a good day"}, {"text": blank}]))


@pytest.mark.parametrize("rows", ["a text", {"text": "a text"}])
def test_one_row_or_text_that_is_no_list_is_refused_with_what_a_list_looks_like(predictor, rows):
    with pytest.raises(UsageError, match=r"predict wants a list of rows, as \[\{'text': ...\}\], or a table; got one"):
        predictor.predict(rows)


def test_one_prompt_needs_no_list(backbone, tmp_path):
    prompt = random_prompt(backbone, [make_task(tmp_path, "mood")])
    alone, listed = Predictor(backbone, prompt), Predictor(backbone, [prompt])
    assert alone.predict(rows()) == listed.predict(rows())
