"""Odd rows made plain."""

import pytest

from mptune.tasks.prepare import (
    PREPARE,
    join_entities,
    mark_spans,
    pad_punctuation,
    round_similarity,
    strip_markup,
    write_facts,
    write_triples,
)
from mptune.tasks.registry import builtin_tasks, paper_tasks


def wsc(text, first, second):
    """The text that spans, each with its word's number, are marked in."""
    row = {"text": text, "span1_text": first[0], "span1_index": first[1]}
    return mark_spans({**row, "span2_text": second[0], "span2_index": second[1]})["text"]


@pytest.mark.parametrize(
    ("text", "first", "second", "marked"),
    [
        pytest.param("Ida fed the hen, for it was old.", ("the hen", 2), ("it", 5),
                     "Ida fed * the hen *, for # it # was old.", id="the pronoun after"),
        pytest.param("When she came, the weaver sang.", ("the weaver", 3), ("she", 1),
                     "When # she # came, * the weaver * sang.", id="the pronoun before"),
        pytest.param("it bit it, and it ran", ("it", 2), ("it", 4),
                     "it bit * it *, and # it # ran", id="the word's number tells equal words apart"),
        pytest.param("The boat sank; I saw it.", ("the boat", 0), ("it", 5),
                     "* The boat * sank; I saw # it #.", id="whatever its capitals"),
        pytest.param("Here the  red\nboat is, and it leaks.", ("red boat", 2), ("it", 6),
                     "Here the  * red\nboat * is, and # it # leaks.", id="whatever its spaces"),
        pytest.param("I lent him a hat, and he lost it.", ("a hat", 4), ("he", 6),
                     "I lent him * a hat *, and # he # lost it.", id="the number of a neighbour"),
        pytest.param("We met their mothers there.", ("their mothers", 2), ("their", 2),
                     "We met * # their # mothers * there.", id="one within the other, at its start"),
        pytest.param("We met all of them there.", ("all of them", 2), ("them", 4),
                     "We met * all of # them # * there.", id="one within the other, at its end"),
        pytest.param("A fox ran off.", ("a fox", 0), ("them", 2),
                     "* A fox * # ran # off.", id="a span that is not there: its word"),
    ],
)  # fmt: skip
def test_spans_are_marked_where_they_stand(text, first, second, marked):
    assert wsc(text, first, second) == marked


def test_a_span_beyond_the_text_is_told():
    with pytest.raises(KeyError, match=r"span2_index 9 \(the text has 3 words\)"):
        wsc("It is late.", ("It", 0), ("it", 9))


def test_markup_of_paragraphs_goes_and_other_signs_stay():
    row = strip_markup({"paragraph": "<b>Sent 1: </b>2 < 3.<br><b>Sent 2: </b>So it is.<br>", "question": "<b>?"})
    assert row == {"paragraph": "Sent 1: 2 < 3. Sent 2: So it is.", "question": "<b>?"}


@pytest.mark.parametrize(
    ("text", "padded"),
    [
        ("Ida's (old) mill, 3.5 m!", "Ida ' s ( old ) mill , 3 . 5 m !"),
        ("a_b  c", "a_b c"),
        ("É cafe\u0301 是", "É cafe\u0301 是"),
        ("5€ + 2", "5 € + 2"),
    ],
)
def test_signs_are_padded_and_letters_and_accents_are_not(text, padded):
    row = pad_punctuation({"question": text, "context": text, "answers": [text], "key": text})
    assert row == {"question": padded, "context": padded, "answers": [padded], "key": text}


def test_answers_are_padded_in_either_form_and_may_be_absent():
    assert pad_punctuation({"answers": {"text": ["a.b"], "answer_start": [4]}}) == {
        "answers": {"text": ["a . b"], "answer_start": [4]}
    }
    assert pad_punctuation({"question": "Why?"}) == {"question": "Why ?"}


def test_highlights_are_sentences_and_entities_one_line():
    passage = 'It rained.\n@highlight\nRain at last\n@highlight\n"Good!"\n@highlight\nIt stops'
    row = join_entities({"passage": passage, "entities": ["Ida", "Velm", "Ida"], "answers": ["Ida"]})
    assert row["passage"] == 'It rained. Rain at last. "Good!" It stops'
    assert row["entities"] == "Ida, Velm"
    assert row["answers"] == ["Ida"]


def test_similarities_are_rounded_to_one_of_26_texts():
    wanted = {
        0: "0.0",
        0.09: "0.0",
        0.11: "0.2",
        2.5: "2.4",
        2.75: "2.8",
        3.3: "3.2",
        3.75: "3.8",
        4.9: "4.8",
        5: "5.0",
    }
    assert {label: round_similarity({"label": label})["rounded"] for label in wanted} == wanted
    every = {round_similarity({"label": i / 1000})["rounded"] for i in range(5001)}
    assert every == {f"{i / 5:.1f}" for i in range(26)}
    assert round_similarity({"sentence1": "x"}) == {"sentence1": "x"}


def test_triples_are_one_line_of_plain_names():
    triples = ['Fenn_Hall | location | "Velm, Lake Sorn"', "Fenn_Hall | floorCount | 3", "Fenn_Hall | owner | ODO_Inc."]
    row = write_triples({"modified_triple_sets": {"mtriple_set": [triples]}, "category": "Building"})
    assert row["triples"] == (
        "Fenn Hall | location | Velm, Lake Sorn && Fenn Hall | floor count | 3 && Fenn Hall | owner | ODO Inc."
    )
    assert row["categories"] == "seen"
    assert write_triples({**row, "category": "Artist"})["categories"] == "unseen"


def test_facts_are_one_line_with_their_names_in_words():
    row = write_facts(
        {"meaning_representation": "name[The Heron], eatType[coffee shop], familyFriendly[no], near[A, B]"}
    )
    assert row["facts"] == "name: The Heron, eat type: coffee shop, family friendly: no, near: A, B"


def test_every_preparation_is_some_tasks():
    tasks = [*builtin_tasks().values(), *paper_tasks().values()]
    assert {task.prepare for task in tasks} - {None} == set(PREPARE)


def test_a_row_that_is_prepared_is_left_as_it_was():
    row = {"text": "A fox ran.", "span1_text": "A fox", "span1_index": 0, "span2_text": "ran.", "span2_index": 2}
    before = dict(row)
    mark_spans(row)
    assert row == before
