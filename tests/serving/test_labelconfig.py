"""What a labelling project's XML says of its choices and of the text it shows."""

import pytest

from mptune.serving.labelconfig import read_label_config, row_of
from mptune.tasks.task import Task
from support.labelstudio import label_config
from support.serving import PAIR

FEEL = Task(name="feel", template="mood text: {text}", verbalizer={"0": "no", "1": "yes"})


@pytest.mark.parametrize(
    ("choices", "wanted"),
    [
        (["no", "yes"], {"0": "no", "1": "yes"}),
        (["1", "0"], {"0": "0", "1": "1"}),
        (["Yes", " NO "], {"0": " NO ", "1": "Yes"}),
        (["YES", "0"], {"0": "0", "1": "YES"}),
        (["no", "yes", "unclear"], {"0": "no", "1": "yes"}),
    ],
    ids=["words", "values", "loosely", "either", "one more"],
)
def test_choices_are_the_tasks_words_or_values(choices, wanted):
    config = read_label_config(label_config(choices), FEEL)
    assert config.choices == wanted
    assert (config.from_name, config.to_name, config.field) == ("mood", "shown", "text")
    assert config.label_of("unclear") is None


def test_a_word_that_is_another_labels_value_is_read_as_a_word():
    crossed = FEEL.model_copy(update={"verbalizer": {"yes": "no", "no": "yes"}})
    assert read_label_config(label_config(), crossed).choices == {"yes": "no", "no": "yes"}


def test_an_alias_stands_for_its_choice_and_other_controls_are_passed_over():
    more = '<Choices name="tone" toName="shown"><Choice value="loud"/></Choices>'
    text = label_config(more=more).replace('<Choice value="no"/>', '<Choice value="Rather not" alias="no"/>')
    assert read_label_config(text, FEEL).choices == {"0": "no", "1": "yes"}


def test_a_task_of_one_field_reads_what_is_shown_and_nothing_else():
    data = {"review": "good", "text": "something else", "name": "of a person"}
    assert row_of(FEEL, data, "review") == {"text": "good"}
    assert row_of(FEEL, data, None) == {"text": "something else"}
    assert row_of(PAIR, {"one": "a", "two": "b", "name": "c"}, "one") == {"one": "a", "two": "b"}
