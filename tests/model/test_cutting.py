"""Texts that are too long lose the ends of their longest fields, and nothing else."""

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptune.config import TrainingConfig
from mptune.errors import DataError
from mptune.model import cutting
from mptune.model.cutting import Tokenizer, fitted
from mptune.model.encoding import encode, encode_inputs
from mptune.tasks.task import Task
from support.models import Noting, make_backbone

LETTERS = Tokenizer(  # tokens of at most four letters; spaces are none
    read=lambda texts: [[len(part) for part in re.findall(r"\S{1,4}", text)] for text in texts],
    letters=sum,
    longest=lambda: 4,
)
READING = Task(
    name="reading",
    template="{passage} Question: {question} Is it so?",
    verbalizer={"0": "no", "1": "yes"},
)
WORDS = st.text(alphabet="ab é是 \n", max_size=60)


def fit(task, row, most):
    """A row of a task, made to fit."""
    example = task.unlabelled(row)
    return fitted([example.input], [example.spans], most, LETTERS)[0]


@given(WORDS, WORDS, st.integers(5, 20))
def test_a_text_that_fits_is_whole_and_one_that_does_not_keeps_the_templates_words(passage, question, most):
    whole = READING.unlabelled({"passage": passage, "question": question}).input
    text = fit(READING, {"passage": passage, "question": question}, most)
    (tokens,) = LETTERS.read([whole])
    assert (text.cap is None) == (len(tokens) <= most)
    cap = len(whole) if text.cap is None else text.cap
    kept = f"{passage[:cap]} Question: {question[:cap]} Is it so?"
    assert text.ids == LETTERS.read([kept])[0]
    assert len(text.ids) <= most or cap == 0


@given(WORDS, WORDS, st.integers(9, 20))
def test_no_more_is_cut_than_must_be(passage, question, most):
    text = fit(READING, {"passage": passage, "question": question}, most)
    if text.cap is not None and len(text.ids) < most:
        assert len(LETTERS.read([text.at(text.cap + 1)])[0]) > most


def test_the_longest_field_is_cut_first_and_equals_alike():
    row = {"passage": "a" * 40, "question": "b" * 8}
    assert fit(READING, row, 12).cut_fields == ["passage"]
    assert fit(READING, row, 7).cut_fields == ["passage", "question"]
    assert fit(READING, {"passage": "a" * 40, "question": "b" * 40}, 12).cut_fields == ["passage", "question"]


def test_a_field_that_stands_twice_is_cut_twice():
    task = READING.model_copy(update={"template": "{text} or {text}?"})
    text = fit(task, {"text": "a" * 40}, 8)
    assert text.at(text.cap) == f"{'a' * 12} or {'a' * 12}?"


def test_of_an_endless_text_only_a_part_is_divided_and_the_same_tokens_are_kept(monkeypatch):
    words = "some words and more of them, without an end " * 20_000
    row, seen = {"passage": words, "question": "why"}, []
    counted = Tokenizer(lambda texts: seen.extend(map(len, texts)) or LETTERS.read(texts), sum, lambda: 4)
    example = READING.unlabelled(row)
    (text,) = fitted([example.input], [example.spans], 50, counted)
    assert max(seen) < 2 * cutting.LONG
    monkeypatch.setattr(cutting, "LONG", 10**9)
    assert text.ids == fit(READING, row, 50).ids


@pytest.mark.parametrize("inner", [" ", "a" * 4])
def test_a_text_of_many_characters_and_few_tokens_is_not_cut(inner):
    # Nothing says of a million spaces that they are too many, until they are read.
    text = fit(READING, {"passage": f"x{inner * 1_000_000}", "question": "why"}, 50)
    assert (text.cap is None) == (inner == " ")


# -- of a backbone ----------------------------------------------------------------------------------------------------


def reading(count=1, **row):
    """Rows of the reading task."""
    return [READING.render({"question": "was it fast", "passage": "", "label": i % 2, **row}, i) for i in range(count)]


def test_a_long_passage_leaves_the_question_whole(any_backbone):
    examples = reading(passage="the sky is blue " * 50)
    data = encode(READING, examples, any_backbone, TrainingConfig(max_input_tokens=40), prompt_length=4)
    (ids,) = data.inputs
    assert 37 <= len(ids) <= 40
    read = any_backbone.tokenizer.decode(ids, skip_special_tokens=True)
    assert re.fullmatch(r"\s*(the sky is blue )+[a-z ]* Question: was it fast Is it so\?", read)


def test_what_was_cut_is_said_once_of_each_task_with_field_rows_end_and_setting(backbone, caplog):
    examples = [*reading(2), *reading(passage="the sky is blue " * 50)]
    config = TrainingConfig(max_input_tokens=40)
    with caplog.at_level(logging.WARNING, logger="mptune.model.encoding"):
        encode(READING, examples[:2], backbone, config, prompt_length=4)
        assert not caplog.records
        for _ in range(2):
            encode(READING, examples, backbone, config, prompt_length=4)
    assert [r.message for r in caplog.records] == [
        "reading: 1 of 3 texts are longer than 40 tokens and are cut at the end of a field: passage of row 0. "
        "To keep more, take a larger max_input_tokens, in the task or with --set."
    ]


def test_where_positions_are_what_is_short_the_prompt_is_the_remedy(caplog):
    backbone = make_backbone("gpt2")
    encode(READING, reading(7, passage="the sky is blue " * 50), backbone, TrainingConfig(), prompt_length=4)
    assert [r.message for r in caplog.records] == [
        "reading: 7 of 7 texts are longer than 58 tokens and are cut at the end of a field: "
        "passage of 7 rows (0, 1, 2, 3, 4, ...). To keep more, take a shorter prompt: tiny-gpt2 reads 64 positions."
    ]


def test_a_template_that_does_not_fit_itself_is_refused(backbone):
    with pytest.raises(DataError) as error:
        encode(READING, reading(), backbone, TrainingConfig(max_input_tokens=5), prompt_length=4)
    assert re.fullmatch(
        r"the template's own words are \d+ tokens, and 5 fit: no text would be read; "
        r"take a larger max_input_tokens, in the task or with --set",
        error.value.problems[0],
    )


def test_plain_texts_are_cut_at_their_end(any_backbone):
    (ids,) = encode_inputs(any_backbone, ["the sky is blue " * 50], max_tokens=20, prompt_length=4, room=8)
    assert len(ids) == 20
    assert any_backbone.tokenizer.decode(ids, skip_special_tokens=True).strip().startswith("the sky is blue the sky")


def test_a_long_text_costs_a_tokenizer_no_more_than_a_short_one(any_backbone):
    seen = []
    any_backbone.tokenizer = Noting(any_backbone.tokenizer, seen)
    long, short = (encode_inputs(any_backbone, ["the sky is blue " * n], 40, 4, 8)[0] for n in (300_000, 600))
    assert list(long) == list(short)
    assert max(map(len, seen)) <= 20_000
