"""Answers and scores of a prompted backbone."""

from dataclasses import replace

import pytest
import torch

from mptune.answers import evaluation
from mptune.answers.evaluation import Validated, answer, answer_rows, evaluate, validate
from mptune.answers.metrics import Score
from mptune.config import DistillConfig, EvaluateConfig, TeachConfig, TrainingConfig
from mptune.errors import BackboneMismatch, DataError, UnknownNameError
from mptune.model.encoding import encode, encode_inputs
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.tasks.data import TaskRows, draw_rows, load_data
from support.models import make_backbone, rms
from support.toys import make_task, toy_rows, write_rows
from support.trained import trained_backbone


def encoded(task, backbone, split="test", length=4):
    return encode(task, getattr(load_data(task, [split]), split), backbone, TrainingConfig(max_target_tokens=8), length)


def answered(backbone, prompt, data, config, **kw):
    """Return the answers to the rows of one task."""
    (answers,) = answer(backbone, [prompt], [data], config, **kw)
    return answers


def a_prompt(backbone, length=4):
    torch.manual_seed(0)
    return torch.randn(length, backbone.width) * rms(backbone.embeddings)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A prompt that has learnt the toy task; only read."""
    return teach(
        make_task(tmp_path_factory.mktemp("taught"), "toy"),
        trained_backbone(),
        TeachConfig(prompt_length=4, steps=16, lr=0.3, validate_every=8),
    )


def test_padding_changes_no_answer_in_any_family(any_backbone, toy_task):
    data, prompt = encoded(toy_task, any_backbone), a_prompt(any_backbone)
    assert len({len(ids) for ids in data.inputs}) > 1, "rows of one length would not be padded"
    alone = answered(any_backbone, prompt, data, EvaluateConfig(batch_size=1))
    together = answered(any_backbone, prompt, data, EvaluateConfig(batch_size=20))
    assert torch.allclose(alone.probabilities, together.probabilities, atol=1e-5)
    assert alone.texts == together.texts


@pytest.mark.parametrize(("own", "asked", "ranks"), [
    ("labels", "task", True), ("generation", "task", False),
    ("labels", "generation", False), ("generation", "labels", True),
])  # fmt: skip
def test_a_task_says_how_it_is_scored_unless_the_configuration_does(backbone, toy_task, own, asked, ranks):
    data = encoded(toy_task.model_copy(update={"scoring": own}), backbone)
    answers = answered(backbone, a_prompt(backbone), data, EvaluateConfig(scoring=asked))
    assert (answers.probabilities is not None) == ranks
    assert EvaluateConfig().scoring == TrainingConfig().scoring == "task"


def test_answers_stand_in_the_rows_order(toy_task):
    backbone = trained_backbone()
    data, prompt = encoded(toy_task, backbone), a_prompt(backbone)
    whole = answered(backbone, prompt, data, EvaluateConfig(batch_size=3))
    for row in (0, 7, 19):
        one = encode(toy_task, [data.examples[row]], backbone, TrainingConfig(), 4)
        alone = answered(backbone, prompt, one, EvaluateConfig()).probabilities[0]
        assert torch.allclose(alone, whole.probabilities[row], atol=1e-5)


def test_tasks_answered_together_are_answered_as_alone(any_backbone, tmp_path):
    """Different prompts, numbers of label words, tokens that tell these apart, and prompt lengths; and free text."""
    words = (
        {"1": "good", "0": "bad"},
        {"1": "not very good", "0": "not very bad"},
        {"1": "yes", "0": "no", "2": "red"},
    )
    tasks = [make_task(tmp_path, f"t{i}", verbalizer=v) for i, v in enumerate(words)]
    tasks.append(make_task(tmp_path, "free", verbalizer={}, target="{label}"))
    prompts = [a_prompt(any_backbone, length) * (1 + i) for i, length in enumerate((4, 2, 4, 4))]
    data = [encoded(t, any_backbone, length=len(p)) for t, p in zip(tasks, prompts, strict=True)]
    for scoring in ("labels", "generation"):
        config = EvaluateConfig(batch_size=7, scoring=scoring, max_target_tokens=3)
        together = answer(any_backbone, prompts, data, config)
        for prompt, rows, mixed in zip(prompts, data, together, strict=True):
            alone = answered(any_backbone, prompt, rows, config)
            assert mixed.texts == alone.texts
            assert mixed.loss == pytest.approx(alone.loss, abs=1e-5)
            assert (mixed.probabilities is None) == (alone.probabilities is None)
            if alone.probabilities is not None:
                assert torch.allclose(mixed.probabilities, alone.probabilities, atol=1e-5)
    assert (together[0].probabilities is None, together[3].probabilities is None) == (True, True)


def test_rows_of_many_tasks_share_forward_passes(backbone, tmp_path, monkeypatch):
    tasks = [make_task(tmp_path, f"t{i}") for i in range(10)]
    data = [encode(t, load_data(t, ["test"]).test[:1], backbone, TrainingConfig(), 4) for t in tasks]
    sizes, score = [], evaluation.label_scores
    monkeypatch.setattr(
        evaluation, "label_scores", lambda b, table, batch: sizes.append(len(batch.choices)) or score(b, table, batch)
    )
    answer(backbone, [a_prompt(backbone)] * 10, data, EvaluateConfig(batch_size=8))
    assert sizes == [8, 2]


def test_probabilities_sum_to_one_and_the_answer_is_the_likeliest(any_backbone, toy_task):
    answers = answered(any_backbone, a_prompt(any_backbone), encoded(toy_task, any_backbone), EvaluateConfig())
    assert torch.allclose(answers.probabilities.sum(1), torch.ones(20), atol=1e-5)
    assert answers.texts == tuple(("no", "yes")[best] for best in answers.probabilities.argmax(1))


def test_the_loss_is_the_right_labels_mean_surprise(toy_task):
    backbone = trained_backbone()
    data = encoded(toy_task, backbone)
    answers = answered(backbone, a_prompt(backbone), data, EvaluateConfig())
    right = [p[("no", "yes").index(e.target)] for p, e in zip(answers.probabilities, data.examples, strict=True)]
    assert answers.loss == pytest.approx(-sum(p.log().item() for p in right) / 20, rel=1e-5)
    assert answered(backbone, a_prompt(backbone), data, EvaluateConfig(), labelled=False).loss is None


def test_no_rows_have_no_answers(toy_task):
    empty = encode(toy_task, [], trained_backbone(), TrainingConfig(), 4)
    answers = answered(trained_backbone(), a_prompt(trained_backbone()), empty, EvaluateConfig())
    assert (answers.texts, answers.probabilities.shape, answers.loss) == ((), (0, 2), None)


def test_each_tasks_text_ends_where_that_task_says(any_backbone, tmp_path):
    """Label words that are ranked stay whole, and share batches whatever their task says."""
    free = make_task(tmp_path, "free", verbalizer={}, target="{label}")
    prompt, how = a_prompt(any_backbone), EvaluateConfig(max_target_tokens=6)
    (whole,) = answer(any_backbone, [prompt], [encoded(free, any_backbone)], how)
    stop = next(letter for text in whole.texts for letter in text if letter.strip())
    stopped = [task.model_copy(update={"stop": stop}) for task in (free, make_task(tmp_path, "ranked"))]
    data = [encoded(task, any_backbone) for task in (free, *stopped)]
    plain, ended, ranked = answer(any_backbone, [prompt] * 3, data, how)
    assert plain.texts == whole.texts
    assert ended.texts == tuple(text.partition(stop)[0].strip() for text in whole.texts)
    assert set(ranked.texts) <= {"no", "yes"}


def test_free_text_has_no_probabilities(tmp_path):
    task = make_task(tmp_path, "free", verbalizer={}, target="{label}")
    answers = answered(trained_backbone(), torch.zeros(0, 16), encoded(task, trained_backbone()), EvaluateConfig())
    assert answers.probabilities is None
    assert answers.loss is None
    assert set(answers.texts) <= {"yes", "no"}, "all that this backbone has learnt to write"


def test_generation_and_ranking_agree_where_the_backbone_writes_label_words(taught, toy_task):
    backbone = trained_backbone()
    scores = [
        evaluate(taught, toy_task, backbone, split="test", config=EvaluateConfig(scoring=scoring))[0]
        for scoring in ("labels", "generation")
    ]
    assert scores[0] == scores[1]
    assert scores[0].value >= 70


def test_generation_counts_a_word_that_is_no_label_as_wrong(taught, tmp_path):
    # The backbone says yes or no; ranking chooses among maybe and true all the same, and is right by chance.
    task = make_task(tmp_path, "toy", verbalizer={"0": "maybe", "1": "true"})
    free = evaluate(taught, task, trained_backbone(), split="test", config=EvaluateConfig(scoring="generation"))
    ranked = evaluate(taught, task, trained_backbone(), split="test")
    assert free[0].value == 0
    assert ranked[0].value > 0


def test_none_asks_the_bare_backbone(toy_task, taught):
    # It says no to everything: right on half of the rows.
    [bare] = evaluate(None, toy_task, trained_backbone(), split="test")
    assert (bare.value, bare.examples) == (50, 20)
    assert evaluate(taught, toy_task, trained_backbone(), split="test")[0].value > 50


def test_rows_are_limited_to_a_fixed_draw(toy_task, taught):
    limited = [
        evaluate(taught, toy_task, trained_backbone(), split="test", config=EvaluateConfig(rows=n)) for n in (5, 5, 99)
    ]
    assert [scores[0].examples for scores in limited] == [5, 5, 20]
    assert limited[0] == limited[1]


def test_every_metric_of_the_task_is_reported_in_its_order(tmp_path, taught):
    task = make_task(tmp_path, "toy", metrics=("f1_macro", "accuracy"))
    scores = evaluate(taught, task, trained_backbone(), split="test")
    assert [(s.task, s.split, s.metric) for s in scores] == [("toy", "test", "f1_macro"), ("toy", "test", "accuracy")]


def test_a_prompt_of_many_tasks_answers_with_the_one_of_that_name(toy_tasks, tmp_path):
    backbone = trained_backbone()
    teachers = [teach(t, backbone, TeachConfig(prompt_length=4, steps=0)) for t in toy_tasks]
    prompt = distill(toy_tasks, teachers, backbone, DistillConfig(steps=0, noise=3))
    for number, task in enumerate(toy_tasks):
        data = encoded(task, backbone, "validation")
        texts = answered(backbone, prompt.collapse()[number], data, EvaluateConfig()).texts
        right = 100 * sum(t == e.target for t, e in zip(texts, data.examples, strict=True)) / 16
        assert evaluate(prompt, task, backbone)[0].value == right
    with pytest.raises(UnknownNameError, match=r"no task of this prompt is called 'moods'\. Did you mean 'mood'\?"):
        evaluate(prompt, make_task(tmp_path, "moods"), backbone)


def test_a_prompt_of_one_task_answers_a_task_of_another_name(taught, tmp_path):
    other = make_task(tmp_path, "other", template="toy text: {text}")
    [score] = evaluate(taught, other, trained_backbone(), split="test")
    assert score.task == "other"
    assert score.value >= 70


def test_another_backbone_is_refused(taught, toy_task):
    with pytest.raises(BackboneMismatch, match="toy was trained for tiny-t5"):
        evaluate(taught, toy_task, make_backbone("t5", seed=1))


def test_a_task_without_the_split_is_refused(taught, toy_task):
    task = toy_task.model_copy(update={"dataset": toy_task.dataset.model_copy(update={"test": None})})
    with pytest.raises(DataError, match="it has no test split; name its file under dataset: test:"):
        evaluate(taught, task, trained_backbone(), split="test")


def test_evaluation_is_the_same_with_the_backbones_dropout_left_on(taught, toy_task):
    backbone = trained_backbone()
    rows = [encoded(toy_task, backbone)]
    calm = validate(backbone, [(taught, rows)], TrainingConfig())
    backbone.set_dropout(True)
    assert validate(backbone, [(taught, rows)], TrainingConfig()) == calm
    assert not backbone.model.training


def test_the_key_compares_first_metrics_and_then_the_smaller_loss():
    def found(*values, loss):
        scores = [Score(task, "validation", metric, value, 10) for task, metric, value in values]
        return Validated(tuple(scores), loss).key

    better = found(("a", "accuracy", 80), ("a", "f1", 0), ("b", "accuracy", 60), loss=9)
    assert better == (70, -9)
    assert better > found(("a", "accuracy", 69), ("a", "f1", 100), ("b", "accuracy", 69), loss=1)
    assert better < found(("a", "accuracy", 70), ("b", "accuracy", 70), loss=8)


def test_longer_texts_are_cut_where_asked(tmp_path, taught):
    # The deciding word stands near the end: cut to seven tokens, all that is left is the template.
    task = make_task(tmp_path, "toy")
    write_rows(tmp_path / "toy.test.jsonl", toy_rows("good", "bad", 20, start=200))
    config = EvaluateConfig(max_input_tokens=7)
    assert evaluate(taught, task, trained_backbone(), split="test", config=config)[0].value == 50


# -- readers, and judging ---------------------------------------------------------------------------------------------


def reader_of(prompt, seen=None, *, own=False):
    """What reads every batch behind one prompt, in a table of one or of every row's own; notes the sizes."""

    def read(batch):
        if seen is not None:
            seen.append(len(batch.mask))
        if own:
            return prompt.expand(len(batch.mask), *prompt.shape), batch.of_own_prompts()
        return prompt[None], batch.of_one_prompt()

    return read


@pytest.mark.parametrize("scoring", ["labels", "generation"])
@pytest.mark.parametrize("own", [False, True], ids=["one for all", "one each"])
def test_a_reader_that_gives_every_row_one_prompt_answers_as_that_prompt(any_backbone, toy_task, scoring, own):
    data, prompt = encoded(toy_task, any_backbone), a_prompt(any_backbone)
    config = EvaluateConfig(batch_size=7, scoring=scoring, max_target_tokens=3)
    plain = answered(any_backbone, prompt, data, config)
    read = answered(any_backbone, reader_of(prompt, own=own), data, config)
    assert (read.texts, read.loss) == (plain.texts, plain.loss)


@pytest.mark.parametrize("scoring", ["labels", "generation"])
def test_what_a_reader_makes_of_the_batch_is_what_is_read(toy_task, scoring):
    backbone = trained_backbone()
    data, (good, bad) = encoded(toy_task, backbone), encode_inputs(backbone, ["good", "bad"], 8, 0, 0)
    prompt = backbone.embeddings[encode_inputs(backbone, ["quite"], 8, 0, 0)[0][:1]]  # the word that asks for an answer

    def contrary(batch):
        ids = batch.input_ids.clone()
        ids[batch.input_ids == good[0]], ids[batch.input_ids == bad[0]] = bad[0], good[0]
        return prompt[None], replace(batch, input_ids=ids).of_one_prompt()

    config = EvaluateConfig(scoring=scoring)
    plain, turned = (answered(backbone, each, data, config).texts for each in (prompt, contrary))
    assert len(set(plain)) == 2
    assert turned != plain


def test_tasks_share_the_batches_of_one_reader_and_not_of_two(toy_tasks):
    backbone, prompt = trained_backbone(), a_prompt(trained_backbone())
    data, config = [encoded(task, backbone) for task in toy_tasks], EvaluateConfig(batch_size=30)
    shared, apart = [], []
    reader = reader_of(prompt, shared)
    together = answer(backbone, [reader] * 3, data, config)
    alone = answer(backbone, [reader_of(prompt, apart) for _ in data], data, config)
    assert (shared, apart) == ([30, 30], [20, 20, 20])
    assert [a.texts for a in together] == [a.texts for a in alone]


def test_a_prompt_and_a_reader_are_asked_side_by_side(toy_tasks):
    backbone, prompt = trained_backbone(), a_prompt(trained_backbone())
    data = [encoded(task, backbone) for task in toy_tasks[:2]]
    mixed = answer(backbone, [prompt, reader_of(2 * prompt)], data, EvaluateConfig())
    alone = [
        answered(backbone, each, rows, EvaluateConfig()) for each, rows in zip([prompt, 2 * prompt], data, strict=True)
    ]
    assert [a.texts for a in mixed] == [a.texts for a in alone]
    assert [a.loss for a in mixed] == pytest.approx([a.loss for a in alone], abs=1e-5)


def test_a_judgement_is_the_answers_and_the_scores_that_they_give(taught, toy_task):
    backbone, prompt = trained_backbone(), taught.collapse()[0]
    examples, answers = answer_rows(prompt, 4, TaskRows(toy_task), backbone, "test", EvaluateConfig())
    (score,) = evaluate(taught, toy_task, backbone, split="test")
    assert examples == tuple(load_data(toy_task, ["test"]).test)
    right = [text == example.target for text, example in zip(answers.texts, examples, strict=True)]
    assert score.value == pytest.approx(100 * sum(right) / 20)
    _, read = answer_rows(reader_of(prompt), 4, TaskRows(toy_task), backbone, "test", EvaluateConfig())
    assert read.texts == answers.texts


def test_a_judgement_of_some_rows_has_those_rows_for_every_prompt(taught, toy_task):
    backbone, config = trained_backbone(), EvaluateConfig(rows=5)
    prompts = (taught.collapse()[0], torch.zeros(0, backbone.width))
    first, second = (answer_rows(p, len(p), TaskRows(toy_task), backbone, "test", config) for p in prompts)
    rows = load_data(toy_task, ["test"]).test
    assert first[0] == second[0] == tuple(draw_rows(rows, 5, seed=0)) != tuple(rows[:5])
    assert len(first[1].texts) == 5


def test_a_judgement_leaves_room_for_the_readers_prompt(toy_task, tmp_path):
    backbone = make_backbone("gpt2")  # of 64 positions
    rows = [{"text": "the sky is blue " * 30, "label": 0}]
    write_rows(tmp_path / "toy.test.jsonl", rows)
    prompt = a_prompt(backbone, length=40)
    _, answers = answer_rows(reader_of(prompt), 40, TaskRows(toy_task), backbone, "test", EvaluateConfig())
    assert answers.texts[0] in ("no", "yes")


def test_an_answer_that_is_right_as_it_can_be_written_has_full_marks(backbone, tmp_path, monkeypatch):
    task = make_task(tmp_path, "years", verbalizer={}, target="19{label}0 ", metrics=("exact_match", "accuracy"))
    monkeypatch.setattr(evaluation, "generate", lambda b, p, batch, *how: ["1910"] * len(batch.input_ids))
    scores = evaluate(None, task, backbone, split="test")
    assert [(s.metric, s.value) for s in scores] == [("exact_match", 50), ("accuracy", 50)]
