"""What a tokenizer cannot write back is said before training, and compared as it can be written."""

import pytest
from tokenizers import normalizers

from mptune.model.encoding import Encoded
from mptune.model.writing import as_meant, unwritable, written
from mptune.tasks.task import Example, Task

FREE = Task(name="years", template="{text}", target="{year}")
WORDS = Task(name="mood", template="{text}", verbalizer={"0": " no", "1": "yes"}, scoring="generation")
ODD = {"year  1930": "year 1930", "１９３０": "1930", "1930 ": "1930", "{1930}": "1930"}


@pytest.fixture
def lossy(any_backbone):
    """A backbone whose tokenizer writes one space for two, plain digits and no braces, as that of T5 does."""
    any_backbone.tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("  ", " "), normalizers.Replace("{", ""), normalizers.Replace("}", "")]
    )
    return any_backbone


def examples(*targets):
    return tuple(Example("years", n, "text", target, None, (target, "or so")) for n, target in enumerate(targets, 1))


def encoded(task, examples):
    return Encoded(task, examples, (), (), (), ())


@pytest.mark.parametrize("text", ODD)
def test_the_right_answer_as_it_can_be_written_is_right(lossy, text):
    assert written(lossy, [text]) == {text: ODD[text]}
    assert as_meant(lossy, encoded(FREE, examples(text)), [ODD[text]]) == [text]
    assert as_meant(lossy, encoded(FREE, examples(text)), ["or so"]) == ["or so"]


def test_a_label_word_is_known_without_its_space_and_others_stay_what_they_are(lossy):
    data = encoded(WORDS, examples("yes", "yes", "yes"))
    assert as_meant(lossy, data, ["no", "yes", "maybe"]) == [" no", "yes", "maybe"]


def test_silence_is_not_the_answer_that_cannot_be_written(lossy):
    assert written(lossy, ["{}"]) == {"{}": ""}
    assert as_meant(lossy, encoded(FREE, examples("{}")), [""]) == [""]


def test_rows_to_predict_have_no_right_answer(lossy):
    data = encoded(FREE, (Example("years", 1, "text", "", None, ()),))
    assert as_meant(lossy, data, ["1930"]) == ["1930"]


def test_targets_that_cannot_be_written_are_said_with_their_rows(lossy):
    name = lossy.config.name
    assert unwritable(FREE, examples("1930", *ODD), lossy, 20) == [
        f"years: {name} cannot write the targets of 4 rows (2, 3, 4, 5) as they stand: 'year 1930' for 'year  1930', "
        "'1930' for '１９３０', '1930' for '1930 '. Answers are compared with what it can write; "
        "where that is nothing, no answer is right"
    ]
    assert unwritable(FREE, examples("1930"), lossy, 20) == []
    assert unwritable(FREE, (), lossy, 20) == []


def test_targets_that_are_cut_are_said_with_their_rows(lossy):
    assert unwritable(FREE, examples("red", "the sky is blue and red"), lossy, 4) == [
        "years: the targets of row 2 are longer than 4 tokens and are cut, so that no answer equals them; "
        "take a larger max_target_tokens with --set"
    ]


def test_label_words_are_said_only_where_they_are_generated(lossy):
    (said,) = unwritable(WORDS, examples("yes"), lossy, 20)
    assert said.startswith(
        f"mood: {lossy.config.name} cannot write all its label words as they stand: 'no' for ' no'. "
    )
    assert unwritable(WORDS.model_copy(update={"scoring": "labels"}), examples("yes"), lossy, 20) == []
