"""A written instruction teaches a prompt: what it reads, what it answers, and how the prompt comes to answer alike."""

import json
import re

import pytest
import torch

from mptune.answers.evaluation import answer, evaluate
from mptune.config import DistillConfig, EvaluateConfig, ExamplesConfig
from mptune.errors import DataError, ResumeError, UsageError
from mptune.model.encoding import encode
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages import distillation
from mptune.stages.distillation import distill
from mptune.stages.instructions import Instruction, answered_rows
from mptune.stages.teachers import teach
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task
from support.toys import make_task, toy_rows, write_rows
from support.trained import trained_backbone

TEXTS = [row["text"] for row in toy_rows("good", "bad", 60)]
TASK = Task.read({"name": "mood", "template": "{text}", "verbalizer": {"0": "bad", "1": "good"}}, "task")
FREE = Task.read({"name": "say", "template": "{text}", "target": "{answer}", "metrics": "exact_match"}, "task")
WORDS = "mood of the text, say good or bad"
SHORT = ExamplesConfig(max_input_tokens=24, max_target_tokens=4)


def given(task=TASK, texts=TEXTS):
    return TaskRows.from_rows([], task, unlabelled=[{"text": text} for text in texts], hold_out=False)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Say it.", "Say it.\n\na good day"),
        ("Say it.\n\n", "Say it.\n\na good day"),
        ("Text: {text} Mood:", "Text: a good day Mood:"),
        ('As {"json": 1}', 'As {"json": 1}\n\na good day'),
    ],
)
def test_the_teacher_reads_it_before_the_row_or_around_it(text, read):
    example = TASK.unlabelled({"text": "a good day"}, 1)
    found = Instruction(TASK, text).before(example)
    assert found.input == read
    assert [found.input[s.start : s.end] for s in found.spans] == ["a good day"]


def test_of_a_long_row_the_teacher_reads_what_a_student_does_and_the_instruction_whole():
    backbone = trained_backbone()
    long = TASK.unlabelled({"text": "the cat sat " * 40}, 1)
    student = encode(TASK, [long], backbone, SHORT, 0).inputs[0]
    (taught,) = Instruction(TASK, f"{WORDS} {{text}} mood").encode([long], backbone, SHORT).inputs
    words = Instruction(TASK, f"{WORDS} {{text}} mood").tokens(backbone)
    assert len(student) == 24
    assert 24 + len(words) - 3 <= len(taught) <= 24 + len(words)
    decoded = backbone.tokenizer.decode(taught, skip_special_tokens=True)
    assert decoded.strip().startswith(WORDS)
    assert decoded.endswith("mood")


def test_a_text_that_stands_twice_is_learnt_from_or_compared_on_and_never_both():
    examples = [
        TASK.unlabelled({"text": text}, n) for n, text in enumerate([*TEXTS, *(f" {t.upper()}" for t in TEXTS)])
    ]
    rows = TaskRows.of_examples(TASK, unlabelled=examples)
    labelled = answered_rows(Instruction(TASK, WORDS), rows, trained_backbone(), SHORT)
    data = labelled.data("train", "validation", "test")
    assert len(data.train) + len(data.validation) + len(data.test) == 60


@pytest.mark.parametrize("task", [TASK, FREE], ids=["labels", "free text"])
def test_rows_are_labelled_by_what_the_bare_model_answers_behind_it(task):
    backbone = trained_backbone()
    labelled = answered_rows(Instruction(task, WORDS), given(task), backbone, SHORT)
    data = labelled.data("train", "validation", "test")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [42, 6, 12]
    longer = task.model_copy(update={"template": f"{WORDS}\n\n{{text}}", "max_input_tokens": 100})
    everything = sorted((*data.train, *data.validation, *data.test), key=lambda e: e.row)
    assert [e.input for e in everything] == TEXTS
    examples = [longer.unlabelled({"text": text}, n) for n, text in enumerate(TEXTS)]
    read = encode(longer, examples, backbone, SHORT, 0)
    config = EvaluateConfig(max_target_tokens=4)
    (bare,) = answer(backbone, [torch.zeros(0, backbone.width)], [read], config, labelled=False)
    assert [e.target for e in everything] == list(bare.texts)
    assert {e.label for e in everything} <= ({"0", "1"} if task is TASK else {None})


def test_the_prompt_begins_as_words_of_the_instruction_evenly_spread():
    backbone = trained_backbone()
    instruction = Instruction(TASK, WORDS)
    labelled = answered_rows(instruction, given(), backbone, SHORT)
    config = DistillConfig(steps=0, prompt_length=3, max_input_tokens=24)
    prompt = distill([labelled], [instruction], backbone, config)
    words = instruction.tokens(backbone)
    chosen = [words[0], words[round((len(words) - 1) / 2)], words[-1]]
    assert torch.equal(prompt.collapse()[0], backbone.embeddings[chosen].float().cpu())
    assert prompt.prompt_length == 3
    assert (
        distill([labelled], [instruction], backbone, config.model_copy(update={"prompt_length": None})).prompt_length
        == 20
    )


def test_a_prompt_learns_to_answer_as_a_text_that_says_what_is_asked(tmp_path):
    """The teacher answers by a word that stands in the row, and the student, at first, does not."""
    backbone = trained_backbone()
    instruction = Instruction(TASK, "text: {text}")
    rows = given(texts=[row["text"] for row in toy_rows("good", "bad", 120)])
    labelled = answered_rows(instruction, rows, backbone, SHORT)
    config = DistillConfig(prompt_length=4, batch_size=16, shared_lr=0.3, max_input_tokens=24, validate_every=20)

    def agreement(steps):
        prompt = distill([labelled], [instruction], backbone, config.model_copy(update={"steps": steps}))
        return evaluate(prompt, labelled, backbone, split="test")[0].value

    before, after = agreement(0), agreement(80)
    assert after >= max(before, 80.0)


def test_it_learns_from_the_teachers_logits_and_not_from_its_words_alone():
    backbone = trained_backbone()
    instruction = Instruction(TASK, WORDS)
    labelled = answered_rows(instruction, given(), backbone, SHORT)
    config = DistillConfig(steps=3, prompt_length=3, max_input_tokens=24, batch_size=8)
    taught = distill([labelled], [instruction], backbone, config)
    alone = distill([labelled], [instruction], backbone, config.model_copy(update={"distill_weight": 0.0}))
    asked = distill([labelled], [instruction], backbone, config.model_copy(update={"teacher_cache": 0.0}))
    assert taught.digest() != alone.digest()
    assert torch.allclose(taught.collapse(), asked.collapse(), atol=1e-4), (
        "asked once or at every step, it says the same"
    )


def test_the_logits_are_those_that_the_model_gives_behind_the_instruction(monkeypatch):
    backbone = trained_backbone()
    instruction = Instruction(TASK, WORDS)
    labelled = answered_rows(instruction, given(), backbone, SHORT)
    asked = []

    class Noting(distillation.TeacherOutputs):
        def __init__(self, backbone, prompts, data, *more, **named):
            asked.append((prompts.shape, [backbone.tokenizer.decode(ids, True) for ids in data[0].inputs]))
            super().__init__(backbone, prompts, data, *more, **named)

    monkeypatch.setattr(distillation, "TeacherOutputs", Noting)
    distill([labelled], [instruction], backbone, DistillConfig(steps=1, prompt_length=3, max_input_tokens=24))
    ((shape, texts),) = asked
    assert shape == (1, 0, backbone.width), "and behind no prompt"
    rows = labelled.data("train").train
    assert len(texts) == len(rows)
    read = backbone.tokenizer(f"{WORDS}\n\n{rows[0].input}")["input_ids"]
    assert texts[0] == backbone.tokenizer.decode(read, True)


def test_several_instructions_are_distilled_into_one_multitask_prompt():
    backbone = trained_backbone()
    tasks = [TASK, TASK.model_copy(update={"name": "tone"})]
    written = [Instruction(tasks[0], WORDS), Instruction(tasks[1], "tone of it")]
    labelled = [answered_rows(each, given(each.task), backbone, SHORT) for each in written]
    prompt = distill(labelled, written[::-1], backbone, DistillConfig(steps=2, max_input_tokens=24, batch_size=8))
    assert [task.name for task in prompt.tasks] == ["mood", "tone"]
    assert prompt.collapse().shape == (2, 20, backbone.width)


def test_a_run_of_another_instruction_is_not_gone_on_with(tmp_path):
    backbone = trained_backbone()
    config = DistillConfig(steps=1, prompt_length=3, max_input_tokens=24)
    first, other = Instruction(TASK, WORDS), Instruction(TASK, "mood of the text, say good or awful")
    rows = answered_rows(first, given(), backbone, SHORT)
    made = distill([rows], [first], backbone, config, out=tmp_path / "p")
    assert distill([rows], [first], backbone, config, out=tmp_path / "p").digest() == made.digest()
    with pytest.raises(ResumeError, match="teachers"):
        distill([rows], [other], backbone, config, out=tmp_path / "p")


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_instruction_without_words_is_refused(text):
    with pytest.raises(UsageError, match="an instruction wants words; got none"):
        Instruction(TASK, text)


def test_what_does_not_fit_is_refused(tmp_path):
    backbone = trained_backbone()
    with pytest.raises(UsageError, match=r"an instruction has one place for a row, \{text\}; got 2"):
        Instruction(TASK, "{text} and {text}")
    with pytest.raises(DataError, match="learnt from 10 rows or more, each once; got 9"):
        answered_rows(Instruction(TASK, WORDS), given(texts=[*TEXTS[:9], TEXTS[0]]), backbone, SHORT)
    rows = answered_rows(Instruction(TASK, WORDS), given(), backbone, SHORT)
    foreign = Instruction(TASK.model_copy(update={"name": "tone"}), WORDS)
    with pytest.raises(UsageError, match="got tasks mood and 1 teachers, with instructions of tone"):
        distill([rows], [foreign], backbone, DistillConfig(steps=0))
    prompt = teach(make_task(tmp_path, "mood"), backbone)
    with pytest.raises(UsageError, match="and no prompts beside them"):
        distill([rows], [Instruction(TASK, WORDS), prompt], backbone, DistillConfig(steps=0))


# -- on the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    write_rows(tmp_path / "rows.jsonl", [{"id": n, "text": text} for n, text in enumerate(TEXTS)])
    (tmp_path / "prompt.txt").write_text(WORDS)
    (tmp_path / "model").symlink_to(made / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


GIVEN = ["distill", "--instruction", "prompt.txt", "--rows", "rows.jsonl", "--backbone", "model", "--steps", "2",
         "--set", "distill.prompt_length=3", "--set", "distill.max_target_tokens=3"]  # fmt: skip


@pytest.mark.parametrize("words", [["--words", "bad,good"], []], ids=["labels", "free text"])
def test_a_command_makes_a_prompt_that_answers_rows(cli, folder, words):
    code, out, err = cli(*GIVEN, *words, "--out", "p")
    assert code == 0, err
    metric = "accuracy" if words else "exact_match"
    assert f"{metric} against its answers\t" in out
    assert "12 rows held out" in out
    assert "tokens a request\t3\tin place of " in out
    code, out, err = cli("predict", "rows.jsonl", "--prompt", "p", "--set", "evaluate.max_target_tokens=3")
    assert code == 0, err
    answers = [json.loads(line)["answer"] for line in out.splitlines()]
    assert len(answers) == 60
    stop = MultitaskPrompt.from_pretrained("p").tasks[0].stop
    assert stop == (None if words else "\n\n"), "a base model goes on with the next example behind an empty line"
    assert set(answers) <= {"bad", "good"} if words else True
    assert cli(*GIVEN, *words, "--out", "p")[0] == 0, "what is finished is not done again"


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--teachers", "t"], 2, "distill wants --teachers, or --instruction with --rows; got both"),
        (["--words", "good,good"], 2, "label words differ from each other; got good, good"),
        (["--words", "good"], 2, "a verbalizer needs two labels or more"),
        (["--text", "txt"], 2, "rows.jsonl has no column 'txt'; it has id, text. Did you mean 'text'?"),
        (["--tasks", "teams", "--words", "a,b"], 2, "an instruction is of one task"),
        (["--tasks", "teams,aspects"], 2, "an instruction is of one task"),
        (["--rows", None], 2, "--instruction wants --rows"),
        (["--rows", "nowhere.csv"], 2, "nowhere.csv cannot be read"),
        (["--instruction", "nowhere.txt"], 2, "nowhere.txt cannot be read: No such file or directory"),
        (["--instruction", "bytes.txt"], 3, "the instruction cannot be read: it is no text in UTF-8"),
        (["--instruction", "empty.txt"], 2, "empty.txt is empty; write the instruction into it"),
        (["--instruction", None], 2, "distill wants --teachers, or --instruction with --rows; got neither"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(cli, folder, monkeypatch, more, code, said):
    def loaded(*given):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("mptune.commands.training.load", loaded)
    (folder / "bytes.txt").write_bytes(b"\xff\xfe\x00q")
    (folder / "empty.txt").write_text("\n")
    options = dict(zip(GIVEN[1::2], GIVEN[2::2], strict=True)) | dict(zip(more[::2], more[1::2], strict=True))
    words = [part for item in options.items() if item[1] is not None for part in item]
    found, _, err = cli("distill", *words, "--out", "x")
    assert found == code, err
    assert said in err
    assert not (folder / "x").exists()


def test_what_belongs_to_an_instruction_is_not_passed_over_beside_teachers(cli, folder):
    code, _, err = cli("distill", "--teachers", "t", "--rows", "rows.jsonl", "--out", "x")
    assert (code, "--rows belongs to --instruction; teachers have rows of their own" in err) == (2, True), err


def test_what_the_instruction_answered_is_counted_and_where_it_hardly_varies_that_is_said(cli, folder):
    code, out, err = cli(*GIVEN, "--words", "bad,good", "--out", "p")
    assert code == 0, err
    counts = dict(re.findall(r"^(bad|good)\t(\d+)$", out, re.MULTILINE))
    assert sum(map(int, counts.values())) == 60
    often = max(map(int, counts.values())) >= 57
    assert ("rows, and that the prompt has learnt; write another" in err) == often
    assert "no training row has the label" not in err
    code, out, err = cli(*GIVEN, "--words", "zebra,good", "--out", "q")
    assert code == 0, err
