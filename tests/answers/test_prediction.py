"""A predictor answers rows of mixed tasks as each task's prompt would answer them alone."""

import pytest

from mptune.answers.prediction import Predictor
from mptune.config import EvaluateConfig, ExamplesConfig
from mptune.errors import ArtifactError, BackboneError, BackboneMismatch, DataError
from mptune.model.encoding import encode, encode_inputs, encode_targets, pad_batch
from mptune.model.scoring import label_scores
from mptune.prompts.card import Calibration
from mptune.tasks.task import Example, Task
from support.models import Noting, make_backbone
from support.prompts import random_prompt
from support.toys import make_task, toy_rows


@pytest.fixture
def two(backbone, tmp_path):
    tasks = [
        make_task(tmp_path, "mood"),
        make_task(tmp_path, "speed", "fast", "slow", verbalizer={"0": "slow", "1": "fast"}),
    ]
    return random_prompt(backbone, tasks)


def test_mixed_rows_are_answered_in_order_and_like_each_task_alone(backbone, two):
    rows = [{"task": ("mood", "speed")[i % 2], "text": row["text"]} for i, row in enumerate(toy_rows("a", "b", 9))]
    together = Predictor(backbone, [two]).predict(rows)
    assert [p.task for p in together] == [r["task"] for r in rows]
    for name in ("mood", "speed"):
        alone = Predictor(backbone, [two]).predict([r for r in rows if r["task"] == name])
        for one, other in zip(alone, [p for p in together if p.task == name], strict=True):
            assert (one.answer, one.label) == (other.answer, other.label)
            assert one.probabilities == pytest.approx(other.probabilities)


def test_each_task_is_answered_by_its_own_prompt(backbone, two):
    odds = []
    for k, name in enumerate(("mood", "speed")):
        (found,) = Predictor(backbone, [two]).predict([{"task": name, "text": "the dog ran"}])
        task = two.tasks[k]
        inputs = encode_inputs(backbone, [task.unlabelled({"text": "the dog ran"}).input], 40, 3, 8)
        words = encode_targets(backbone, task.label_words, 8)
        batch = pad_batch(backbone, [0], inputs, [[1]], [words])
        scores = [label_scores(backbone, prompt[None], batch).softmax(-1)[0].tolist() for prompt in two.collapse()]
        assert list(found.probabilities.values()) == pytest.approx(scores[k], abs=1e-5)
        odds.append(scores)
    assert odds[0][0] != pytest.approx(odds[0][1], abs=1e-3)  # the two prompts do say something else


def test_label_words_come_back_as_label_values_with_probabilities_that_sum_to_one(backbone, two):
    for prediction in Predictor(backbone, [two]).predict([{"task": "speed", "text": "the dog ran"}]):
        assert prediction.label == {"slow": "0", "fast": "1"}[prediction.answer]
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
        assert prediction.answer == max(prediction.probabilities, key=prediction.probabilities.get)


def test_every_row_that_cannot_be_answered_is_named_at_once(backbone, two):
    rows = [{"task": "mod", "text": "a"}, {"task": "mood", "txt": "a"}, {"task": "mood", "text": "fine"}, {"text": "b"}]
    with pytest.raises(DataError) as error:
        Predictor(backbone, [two]).predict(rows)
    assert len(error.value.problems) == 3
    assert "row 1: no task of this predictor is called 'mod'. Did you mean 'mood'?" in str(error.value)
    assert "row 2: no field 'text'; it has task, txt" in str(error.value)
    assert "row 4: no field 'task', for one of mood, speed; it has text" in str(error.value)
    with pytest.raises(DataError, match=r"row 1: task holds a list, where text is wanted"):
        Predictor(backbone, [two]).predict([{"task": ["mood"], "text": "a"}])


def test_no_rows_are_answered_by_no_answers(backbone, two):
    assert Predictor(backbone, [two]).predict([]) == []


def test_a_single_task_needs_no_task_field(backbone, tmp_path):
    prompt = random_prompt(backbone, [make_task(tmp_path, "mood")])
    (prediction,) = Predictor(backbone, [prompt]).predict([{"text": "fine"}])
    assert prediction.task == "mood"


def test_free_text_has_no_label_and_no_probabilities(backbone, tmp_path):
    task = make_task(tmp_path, "write", verbalizer={}, target="{label}")
    (prediction,) = Predictor(backbone, [random_prompt(backbone, [task])]).predict([{"text": "fine"}])
    assert (prediction.label, prediction.probabilities) == (None, None)
    assert set(prediction.as_dict()) == {"task", "answer"}


def test_a_folder_of_prompts_becomes_one_predictor(backbone, tmp_path):
    for name in ("mood", "speed"):
        random_prompt(backbone, [make_task(tmp_path, name)], seed=len(name)).save_pretrained(tmp_path / "all" / name)
    predictor = Predictor.from_pretrained(tmp_path / "all", backbone)
    assert [t.name for t in predictor.tasks] == ["mood", "speed"]
    with pytest.raises(ArtifactError, match="holds no prompt"):
        Predictor.from_pretrained(tmp_path, backbone)


def test_a_prompt_of_another_backbone_is_refused_by_name(two):
    with pytest.raises(BackboneMismatch, match=r"tiny-t5.*got tiny-llama"):
        Predictor(make_backbone("llama"), [two])


def test_a_long_field_of_a_row_is_cut_and_the_template_stays(backbone, tmp_path, caplog):
    task, seen = make_task(tmp_path, "mood", template="{passage} Question: {question}?"), []
    predictor = Predictor(backbone, [random_prompt(backbone, [task])], EvaluateConfig(max_input_tokens=40))
    backbone.tokenizer = Noting(backbone.tokenizer, seen)
    assert len(predictor.predict([{"passage": "the sky " * n, "question": "was it"} for n in (1, 90)])) == 2
    assert "1 of 2 texts are longer than 40 tokens and are cut at the end of a field: passage of row 2" in caplog.text
    assert all(text.endswith("Question: was it?") for text in seen if "sky" in text)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (None, r"row 1: wants {field: value}, as {'text': ...}; got None"),
        ("text", r"row 1: wants {field: value}, as {'text': ...}; got 'text'"),
        ({"text": "\ud83d"}, r"row 1: half a character, as \\ud83d alone"),
    ],
)
def test_what_is_no_row_is_said_and_no_traceback(backbone, tmp_path, row, says):
    predictor = Predictor(backbone, [random_prompt(backbone, [make_task(tmp_path, "mood")])])
    with pytest.raises(DataError, match=says):
        predictor.predict([row])


def test_answers_that_are_no_numbers_are_an_error(backbone, tmp_path):
    predictor = Predictor(backbone, [random_prompt(backbone, [make_task(tmp_path, "mood")])])
    for weights in backbone.model.parameters():
        weights.data.fill_(float("nan"))
    with pytest.raises(BackboneError, match=r"tiny-t5 answers with numbers that are not finite"):
        predictor.predict([{"text": "fine"}])


def test_room_is_kept_for_what_may_be_written_whatever_the_targets_are():
    backbone = make_backbone("gpt2")
    task, config = Task(name="say", template="{text}", target="{said}"), ExamplesConfig(max_target_tokens=30)
    long = "the sky is blue and a cat sat on mat " * 9
    (row,) = Predictor(
        backbone, [random_prompt(backbone, [task], length=4)], EvaluateConfig(max_target_tokens=30)
    ).predict([{"text": long}])
    assert isinstance(row.answer, str)
    read = [
        encode(task, [Example("say", 1, long, target, None, ())], backbone, config, 4).inputs
        for target in ("", "yes", "not very good")  # of predict, and of evaluate
    ]
    assert [len(ids) for (ids,) in read] == [64 - 4 - 30] * 3


def calibrated(prompt, **of_task):
    """Calibrate tasks of a prompt, each by a temperature and a threshold."""
    found = {name: Calibration(temperature=t, threshold=at, precision=0.9, rows=20, split="test")
             for name, (t, at) in of_task.items()}  # fmt: skip
    prompt.card = prompt.card.model_copy(update={"calibration": found})
    return prompt


def test_each_task_has_its_own_temperature_and_threshold(backbone, two):
    rows = [{"task": ("mood", "speed")[i % 2], "text": row["text"]} for i, row in enumerate(toy_rows("a", "b", 9))]
    plain = Predictor(backbone, [two]).predict(rows)
    assert not Predictor(backbone, [two]).abstains
    assert {each.abstained for each in plain} == {None}
    predictor = Predictor(backbone, [calibrated(two, mood=(10.0, 0.9))])
    assert predictor.abstains
    for before, now in zip(plain, predictor.predict(rows), strict=True):
        assert now.answer == before.answer
        if now.task == "speed":
            assert now == before
        else:
            assert 0.5 <= now.confidence < before.confidence
            assert now.abstained is (now.confidence < 0.9)


def test_a_confidence_of_the_threshold_itself_is_not_abstained(backbone, two):
    rows = [{"task": "mood", "text": row["text"]} for row in toy_rows("a", "b", 9)]
    sure = sorted(each.confidence for each in Predictor(backbone, [two]).predict(rows))
    again = Predictor(backbone, [calibrated(two, mood=(1.0, sure[4]))]).predict(rows)
    assert [each.abstained for each in sorted(again, key=lambda each: each.confidence)] == [True] * 4 + [False] * 5


def test_a_confidence_that_is_no_number_is_never_relied_on():
    found = Calibration(temperature=1, threshold=0.5, precision=0.9, rows=20, split="test")
    assert found.abstains(float("nan")) is True
    assert found.abstains(None) is None


def test_answers_that_are_written_have_nothing_to_abstain_by(backbone, two):
    how = EvaluateConfig(scoring="generation", max_target_tokens=3)
    (found,) = Predictor(backbone, [calibrated(two, mood=(2.0, 0.9))], how).predict([{"task": "mood", "text": "a"}])
    assert (found.confidence, found.abstained) == (None, None)


def test_what_is_gone_on_with_knows_the_calibration(backbone, two):
    plain = Predictor(backbone, [two]).identity
    changed = [
        {"mood": (2.0, 0.9)}, {"mood": (2.1, 0.9)}, {"mood": (2.0, 0.8)}, {"mood": (2.0, None)}, {"speed": (2.0, 0.9)},
    ]  # fmt: skip
    found = [Predictor(backbone, [calibrated(two, **each)]).identity for each in changed]
    assert len({plain, *found}) == 6
