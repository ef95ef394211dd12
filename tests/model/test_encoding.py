"""Text to token ids, as every family's tokenizer wants it; examples to token ids to batches."""

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mptune.config import BackboneConfig, TrainingConfig
from mptune.errors import BackboneError, DataError
from mptune.model import encoding
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE
from mptune.model.encoding import (
    by_length,
    collate,
    distinguishing_depth,
    encode,
    encode_inputs,
    encode_targets,
    label_ids,
    pad,
    pad_batch,
)
from mptune.model.scoring import generate
from mptune.tasks.data import load_data
from mptune.tasks.task import Task
from support.models import TEXTS, make_backbone, make_tokenizer, some_prompts
from support.toys import make_task

LIMITED = ("bart", "marian", "gpt2", "llama")  # families with a table or a range of positions


def token_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


DEPTHS = [
    pytest.param([[5, 1], [6, 1]], 1, id="differ at the first token"),
    pytest.param([[5, 6, 1], [5, 7, 1], [8, 1]], 2, id="two share the first token"),
    pytest.param([[5, 1], [5, 6, 1]], 2, id="one begins the other"),
    pytest.param([[5], [5, 1]], 2, id="one begins the other and has no end"),
    pytest.param([[5, 6, 7, 1], [5, 6, 8, 1], [9, 1]], 3, id="one is shorter than the depth"),
    pytest.param([[5, 1]], 1, id="one word alone"),
    pytest.param([[5, 1], [6, 1], [5, 1]], 0, id="two are the same throughout"),
]


@pytest.mark.parametrize(("label_ids", "depth"), DEPTHS)
def test_label_words_are_told_apart_by_as_few_tokens_as_possible(label_ids, depth):
    assert distinguishing_depth(label_ids) == depth


@pytest.mark.parametrize("family", LIMITED)
def test_a_long_text_is_cut_to_what_the_prompt_and_the_target_leave(family):
    backbone = make_backbone(family)
    text = "the sky is blue " * 50
    (whole,) = backbone.tokenizer([text])["input_ids"]
    (ids,) = encode_inputs(backbone, [text], max_tokens=1000, prompt_length=10, room=8)
    assert len(ids) == (54 if backbone.is_encoder_decoder else 46)
    assert list(ids[:45]) == whole[:45]
    batch = pad_batch(backbone, [0], [ids], [[5] * 8])
    assert backbone(some_prompts(backbone, 1, 10), batch).logits.shape == (1, 8, 400)
    assert len(generate(backbone, some_prompts(backbone, 1, 10), batch, 8)) == 1


def test_many_texts_are_read_in_portions_and_kept_small(monkeypatch):
    backbone, texts = make_backbone("t5"), [*TEXTS * 2, "the sky is blue " * 20]
    monkeypatch.setattr(encoding, "TEXTS_AT_ONCE", 2)
    asked, tokenizer = [], backbone.tokenizer
    backbone.tokenizer = lambda some, **how: asked.append(len(some)) or tokenizer(some, **how)
    ids = encode_inputs(backbone, texts, max_tokens=30, prompt_length=0, room=8)
    assert asked[:3] == [2, 2, 1]
    assert [list(row) for row in ids[:4]] == tokenizer(TEXTS * 2)["input_ids"]
    assert all(len(memoryview(row).tobytes()) == 4 * len(row) for row in ids)


def test_relative_positions_set_no_limit_but_max_tokens():
    backbone = make_backbone("t5")
    (ids,) = encode_inputs(backbone, ["the sky is blue " * 50], max_tokens=150, prompt_length=1000, room=8)
    assert backbone.positions is None
    assert len(ids) == 150


@pytest.mark.parametrize("family", ["t5", "mt5", "bart", "marian"])
def test_a_cut_text_keeps_its_closing_eos(family):
    backbone = make_backbone(family)
    ids = encode_inputs(backbone, TEXTS, max_tokens=6, prompt_length=0, room=8)
    assert [len(i) for i in ids] == [5, 6]
    assert [i[-1] for i in ids] == [1, 1]


def test_a_cut_text_keeps_an_eos_whose_number_is_zero():
    tokenizer = make_tokenizer(adds_eos=True)
    tokenizer.eos_token, tokenizer.pad_token = "<pad>", "</s>"  # Marian's vocabularies begin with the end
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <pad>", special_tokens=[("<pad>", 0)]
    )
    backbone = Backbone(make_backbone("marian").model, tokenizer, BackboneConfig(name="zero"))
    ids = encode_inputs(backbone, TEXTS, max_tokens=6, prompt_length=0, room=8)
    assert [i[-1] for i in ids] == [0, 0]


@pytest.mark.parametrize(("lengths", "portions"), [
    ([3] * 5, [(0, 2), (2, 4), (4, 5)]), ([9, 9, 3], [(0, 1), (1, 2), (2, 3)]), ([3, 50, 3], [(0, 1), (1, 2), (2, 3)]),
    ([], []),
])  # fmt: skip
def test_a_portion_is_of_some_texts_and_of_some_characters(monkeypatch, lengths, portions):
    monkeypatch.setattr(encoding, "TEXTS_AT_ONCE", 2)
    monkeypatch.setattr(encoding, "CHARACTERS_AT_ONCE", 10)
    assert list(encoding._portions(["x" * length for length in lengths])) == portions


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_prompt_that_leaves_no_place_for_the_text_is_refused_with_the_target(family):
    backbone = make_backbone(family)
    assert encode_inputs(backbone, TEXTS, 40, prompt_length=55, room=8)
    with pytest.raises(BackboneError) as error:
        encode_inputs(backbone, TEXTS, 40, prompt_length=56, room=8)
    assert str(error.value) == (
        f"tiny-{family} reads 64 positions, and a prompt of 56 soft tokens and 8 target tokens would leave none for "
        "the text. Take a shorter prompt or a smaller max_target_tokens."
    )


@pytest.mark.parametrize("family", ["bart", "marian"])
def test_a_prompt_that_leaves_no_place_for_the_text_is_refused(family):
    backbone = make_backbone(family)
    assert encode_inputs(backbone, TEXTS, 40, prompt_length=63, room=8)
    with pytest.raises(BackboneError) as error:
        encode_inputs(backbone, TEXTS, 40, prompt_length=64, room=8)
    assert str(error.value) == (
        f"tiny-{family} reads 64 positions, and a prompt of 64 soft tokens would leave none for the text. "
        "Take a shorter prompt."
    )


def trained(pre_tokenizer, normalizer=None):
    """A tokenizer that treats the space between words in a way of its own."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=100, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["the", "sky", "yes", "no", " the", " sky", " yes", " no"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


SPACES = [
    pytest.param(lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False)), id="as GPT-2, no space of its own"),
    pytest.param(lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True)), id="a space where none is"),
    pytest.param(lambda: trained(pre_tokenizers.Metaspace(prepend_scheme="always")), id="as SentencePiece"),
    pytest.param(
        lambda: trained(None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])),
        id="as Llama 2, a space before every text",
    ),
]


@pytest.mark.parametrize("make", SPACES)
def test_a_decoder_only_target_goes_on_with_the_text_after_one_space(make):
    tokenizer = make()
    backbone = Backbone(make_backbone("gpt2").model, tokenizer, BackboneConfig(name="spaces"))
    targets = encode_targets(backbone, ["yes", "no"], max_tokens=8)
    for word, ids in zip(["yes", "no"], targets, strict=True):
        assert token_ids(tokenizer, "the sky") + ids == [*token_ids(tokenizer, f"the sky {word}"), 1]


def test_an_encoder_decoders_target_begins_without_a_space():
    tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    backbone = Backbone(make_backbone("t5").model, tokenizer, BackboneConfig(name="spaces"))
    assert token_ids(tokenizer, "yes") != token_ids(tokenizer, " yes")
    assert encode_targets(backbone, ["yes"], max_tokens=8) == [[*token_ids(tokenizer, "yes"), 1]]


def test_a_cut_target_keeps_its_end(any_backbone):
    (whole,) = encode_targets(any_backbone, ["not very good"], max_tokens=8)
    assert encode_targets(any_backbone, ["not very good"], max_tokens=3) == [[*whole[:2], 1]]


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
    config = TrainingConfig(max_input_tokens=9, max_target_tokens=1)
    data = encode(toy_task, load_data(toy_task, ["train"]).train, backbone, config, prompt_length=4)
    eos = backbone.tokenizer.eos_token_id
    assert {len(i) for i in data.inputs} == {9}
    assert all(i[-1] == eos for i in data.inputs)
    assert all(t == [eos] for t in data.targets)


def test_a_tasks_own_length_takes_the_place_of_the_stages(backbone, toy_task):
    examples = load_data(toy_task, ["train"]).train
    for own, longest in ((10, 10), (None, 8)):
        task = toy_task.model_copy(update={"max_input_tokens": own})
        data = encode(task, examples, backbone, TrainingConfig(max_input_tokens=8), prompt_length=4)
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


def test_rows_are_padded_to_the_longest_and_are_one_wide_at_least():
    assert pad([[1], [2, 3]], 0).tolist() == [[1, 0], [2, 3]]
    assert pad([[1], [2, 3]], 0, left=True).tolist() == [[0, 1], [2, 3]]
    assert pad([[], []], 7).tolist() == [[7], [7]]  # an empty text is read as padding, and still answered


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


def test_label_words_are_compared_by_their_first_tokens_and_not_pair_by_pair(backbone, monkeypatch):
    task = words(**{f"w{n}": f"{'z q x w' if n % 3 else 'good'} {n}" for n in range(12)})
    ids = encoding.encode_targets(backbone, task.label_words, 64)
    pairs = [(a, b) for b in range(12) for a in range(b) if ids[a][:4] == ids[b][:4]]
    monkeypatch.setattr(encoding, "distinguishing_depth", lambda *_: pytest.fail("two words were compared"))
    with pytest.raises(DataError) as error:
        label_ids(task, backbone)
    named = [f"the label words {task.label_words[a]!r} and {task.label_words[b]!r}" for a, b in pairs]
    assert [problem.partition(" have ")[0] for problem in error.value.problems] == named


def test_label_words_are_checked_before_any_example_is_encoded(backbone, tmp_path):
    task = make_task(tmp_path, "mood", verbalizer={"0": "z q x w one", "1": "z q x w two"})
    with pytest.raises(DataError, match="same first tokens"):
        encode(task, load_data(task, ["train"]).train, backbone, TrainingConfig(), prompt_length=4)
