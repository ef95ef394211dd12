"""Examples to token ids to batches."""

import pytest
import torch

from conftest import make_backbone, make_task
from mptune.batching import by_length, collate, encode, label_ids
from mptune.config import TrainingConfig
from mptune.data import load_data
from mptune.errors import DataError
from mptune.losses import IGNORE
from mptune.tasks import Task


def words(**verbalizer):
    """A task of nothing but label words."""
    return Task(name="mood", template="{text}", verbalizer=verbalizer)


@pytest.fixture
def encoded(backbone, tmp_path):
    """All training rows of three toy tasks, each with words of its own."""
    words = {"mood": ("good", "awful"), "speed": ("fast", "slow"), "colour": ("blue", "red")}
    tasks = [make_task(tmp_path, n, *w, verbalizer=dict(zip("10", w, strict=True))) for n, w in words.items()]
    return [encode(t, load_data(t, ["train"]).train, backbone, TrainingConfig(), prompt_length=4) for t in tasks]


def test_every_example_keeps_its_place_and_its_text(backbone, toy_task):
    examples = load_data(toy_task, ["train"]).train
    data = encode(toy_task, examples, backbone, TrainingConfig(), prompt_length=4)
    assert data.task is toy_task
    assert data.examples == examples
    decode = backbone.tokenizer.decode
    assert [decode(i, skip_special_tokens=True).strip() for i in data.inputs] == [e.input for e in examples]
    assert [decode(t, skip_special_tokens=True).strip() for t in data.targets] == [e.target for e in examples]
    assert all(t[-1] == backbone.tokenizer.eos_token_id for t in data.targets)


def test_inputs_and_targets_are_cut_to_their_lengths_and_still_end(backbone, toy_task):
    config = TrainingConfig(max_input_tokens=5, max_target_tokens=1)
    data = encode(toy_task, load_data(toy_task, ["train"]).train, backbone, config, prompt_length=4)
    eos = backbone.tokenizer.eos_token_id
    assert {len(i) for i in data.inputs} == {5}
    assert all(i[-1] == eos for i in data.inputs)
    assert all(t == [eos] for t in data.targets)


def test_a_tasks_own_length_takes_the_place_of_the_stages(backbone, toy_task):
    examples = load_data(toy_task, ["train"]).train
    for own, longest in ((6, 6), (None, 4)):
        task = toy_task.model_copy(update={"max_input_tokens": own})
        data = encode(task, examples, backbone, TrainingConfig(max_input_tokens=4), prompt_length=4)
        assert max(map(len, data.inputs)) == longest


def test_no_examples_are_no_rows(backbone, toy_task):
    data = encode(toy_task, [], backbone, TrainingConfig(), prompt_length=4)
    assert data.inputs == data.targets == ()


def test_a_decoder_only_model_has_room_for_prompt_text_and_target(toy_task):
    backbone = make_backbone("gpt2")
    data = encode(toy_task, load_data(toy_task, ["train"]).train, backbone, TrainingConfig(), prompt_length=50)
    assert max(map(len, data.inputs)) + max(map(len, data.targets)) + 50 <= backbone.positions


def test_a_batch_may_mix_tasks_and_each_row_stays_with_its_own(backbone, encoded):
    picks = [(2, 5), (0, 1), (1, 0), (2, 5)]
    batch = collate(picks, encoded, backbone)
    assert batch.task_ids.tolist() == [2, 0, 1, 2]
    for row, (t, i) in enumerate(picks):
        assert batch.input_ids[row][batch.mask[row] == 1].tolist() == list(encoded[t].inputs[i])
        assert batch.labels[row][batch.labels[row] != IGNORE].tolist() == encoded[t].targets[i]
    assert torch.equal(batch.input_ids[0], batch.input_ids[3])


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batches_by_length_hold_every_row_once_and_like_lengths_together(batch_size, encoded):
    picks = [(t, row) for t, task in enumerate(encoded) for row in range(len(task.inputs))]
    batches = list(by_length(picks, encoded, batch_size))
    assert sorted(pick for batch in batches for pick in batch) == picks
    assert all(len(batch) == batch_size for batch in batches[:-1])
    in_order = [len(encoded[t].inputs[row]) for batch in batches for t, row in batch]
    assert in_order == sorted(in_order)
    assert len(set(in_order)) > 1
    assert batch_size == 1 or any(len({t for t, _ in batch}) > 1 for batch in batches)


def test_no_rows_make_no_batches(encoded):
    assert list(by_length([], encoded, 4)) == []


def test_label_ids_are_the_words_of_the_verbalizer_in_its_order(any_backbone):
    ids = label_ids(words(b="yes", a="no", c="maybe"), any_backbone)
    decoded = [any_backbone.tokenizer.decode(i, skip_special_tokens=True).strip() for i in ids]
    assert decoded == ["yes", "no", "maybe"]
    assert all(i[-1] == any_backbone.tokenizer.eos_token_id for i in ids)


def test_free_text_has_no_label_ids(backbone):
    assert label_ids(Task(name="mood", template="{text}", target="{mood}"), backbone) == []


def test_a_label_word_may_begin_another(backbone):
    assert len(label_ids(words(a="not", b="not good"), backbone)) == 2


def test_every_pair_of_label_words_with_the_same_first_tokens_is_refused(backbone):
    same = "z q x w"  # letters of no merge: more tokens than are compared
    task = words(a=f"{same} one", b="good", c=f"{same} two", d=f"{same} three")
    with pytest.raises(DataError) as error:
        label_ids(task, backbone)
    assert len(error.value.problems) == 3
    assert error.value.problems[0] == (
        f"the label words '{same} one' and '{same} two' have the same first tokens in tiny-t5; "
        "choose words that differ at their start"
    )


def test_label_words_are_checked_before_any_example_is_encoded(backbone, tmp_path):
    task = make_task(tmp_path, "mood", verbalizer={"0": "z q x w one", "1": "z q x w two"})
    with pytest.raises(DataError, match="same first tokens"):
        encode(task, load_data(task, ["train"]).train, backbone, TrainingConfig(), prompt_length=4)
