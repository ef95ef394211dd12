"""The written sample tasks, each rendered once from a row written for this test."""

import pytest

from mptune.tasks.registry import builtin_tasks, paper_tasks

RENDERED = {
    "intents": (
        {"message": "Send the spare key to the boathouse.", "label": "request"},
        "Is this message a question, a complaint, praise or a request? Send the spare key to the boathouse.",
        "request",
    ),
    "aspects": (
        {"remark": "The soup was cold.", "label": "food"},
        "Is this remark about the room, the food, the staff or the price? The soup was cold.",
        "food",
    ),
    "feelings": (
        {"message": "Will the dam hold?", "label": "worried"},
        "Is the writer pleased, angry, worried or confused? Will the dam hold?",
        "worried",
    ),
    "teams": (
        {"message": "The crate came without its lid.", "label": "warehouse"},
        "Should repairs, warehouse, sales or payments read this message? The crate came without its lid.",
        "warehouse",
    ),
    "answers": (
        {"question": "Is the pool heated?", "reply": "Towels are at the desk.", "label": "no"},
        "Does the reply answer the question? Question: Is the pool heated? Reply: Towels are at the desk.",
        "no",
    ),
    "claims": (
        {"note": "The lift is out until four.", "claim": "The lift does not run now.", "label": "true"},
        'The lift is out until four. From this text, can we conclude that "The lift does not run now."?',
        "yes",
    ),
    "contradiction": (
        {"policy": "Pets may stay on the ground floor.", "reply": "We take no pets.", "label": "contradiction"},
        'Pets may stay on the ground floor. From this text, can we conclude that "We take no pets."?',
        "no",
    ),
    "opinions": (
        {"text": "It broke twice.", "label": "negative"},
        "Is this review positive or negative? It broke twice.",
        "negative",
    ),
    "paraphrase": (
        {"first": "The tap drips.", "second": "Water falls from the tap in drops.", "label": "same"},
        "Do these two sentences say the same? First: The tap drips. Second: Water falls from the tap in drops.",
        "yes",
    ),
    "refund": (
        {"request": "You sent me the wrong size.", "label": "yes"},
        "Is the shop at fault here? You sent me the wrong size.",
        "yes",
    ),
    "topics": (
        {"message": "Please end my contract.", "label": "cancellation"},
        "Is this message about billing, delivery, account, product or cancellation? Please end my contract.",
        "cancellation",
    ),
    "urgency": (
        {"message": "Smoke comes from the boiler!", "label": "urgent"},
        "Is this message urgent or routine? Smoke comes from the boiler!",
        "urgent",
    ),
}


def test_every_sample_task_is_rendered_here_and_every_public_one_in_its_own_file():
    assert set(RENDERED) == set(builtin_tasks()) - set(paper_tasks())


@pytest.mark.parametrize("name", RENDERED)
def test_a_row_of_every_built_in_task_reads_as_it_should(name):
    row, text, target = RENDERED[name]
    example = builtin_tasks()[name].render(row, 3)
    assert (example.task, example.row, example.input, example.target) == (name, 3, text, target)
    assert example.label == str(row["label"])


@pytest.mark.parametrize("name", RENDERED)
def test_the_label_words_of_a_built_in_task_differ_by_more_than_capitals(name):
    words = builtin_tasks()[name].label_words
    assert len({w.strip().lower() for w in words}) == len(words)
