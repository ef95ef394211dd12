"""Prompts and adapters of strangers: whatever is wrong with them is one line, within a second."""

import json
import time

import pytest
import torch
from safetensors.torch import save_file

from mptune.answers.prediction import Predictor
from mptune.errors import ArtifactError, BackboneMismatch, MptuneError
from mptune.prompts.peft import import_peft
from mptune.prompts.prompt import MultitaskPrompt, backbone_of
from mptune.prompts.stored import stored_config

TASK = {"name": "mood", "template": "mood: {text}", "verbalizer": {"0": "bad", "1": "good"}}
SCORE = {"task": "mood", "split": "test", "metric": "accuracy", "value": 91.25, "examples": 40}
FOUND = {"temperature": 1.5, "threshold": 0.8, "precision": 0.9, "rows": 100, "split": "validation"}


def prompt_folder(folder, backbone, width=16, tensors=None, **changes):
    """A stranger's prompt."""
    card = {"stage": "target", "tasks": [TASK], "backbone": "tiny", "fingerprint": backbone.fingerprint, **changes}
    made = {"shared": torch.ones(4, width), "u": torch.ones(1, 4, 1), "v": torch.ones(1, 1, width), **(tensors or {})}
    folder.mkdir(exist_ok=True)
    save_file(made, folder / "prompt.safetensors", metadata={"card": json.dumps(card)})
    return folder


def said(call, kind=MptuneError):
    """What an error says: one line, within a second."""
    started = time.monotonic()
    with pytest.raises(kind) as error:
        call()
    text = str(error.value)
    assert time.monotonic() - started < 1
    assert "\n" not in text
    assert len(text) < 1000
    return text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"scores": [3]}, "scores.0: Input should be an object", id="a score that is a number"),
        pytest.param({"scores": [{}]}, "scores: task of a score is missing or of a wrong type; got None", id="no task"),
        pytest.param({"scores": [SCORE | {"value": "9"}]}, "value of a score is missing or of a wrong", id="a text"),
        pytest.param({"scores": [SCORE | {"value": True}]}, "value of a score is missing or of a wrong", id="a truth"),
        pytest.param({"scores": [SCORE | {"value": 1e308}]}, "wants a number of its metric's scale", id="a huge score"),
        pytest.param({"scores": [SCORE | {"examples": 1.5}]}, "examples of a score is missing or of", id="half a row"),
        pytest.param({"tasks": []}, "it has no task", id="no tasks"),
        pytest.param({"tasks": 5}, "tasks: Input should be a valid array", id="a number of tasks"),
        pytest.param({"tasks": [TASK] * 2}, r"u should be [K=2, L=4, R]; got [1, 4, 1]", id="more tasks than vectors"),
        pytest.param(
            {"format": 2}, "this mptune reads cards of format 1; got 2. Install a newer one", id="a newer card"
        ),
        *[
            pytest.param({"calibration": {"mood": FOUND | change}}, says, id=f"calibrated to {change}")
            for change, says in (
                ({"temperature": 0}, "calibration.mood.temperature: Input should be greater than or equal to 0.1"),
                ({"temperature": 1e300}, "calibration.mood.temperature: Input should be less than or equal to 10"),
                ({"temperature": "warm"}, "calibration.mood.temperature: Input should be a valid number"),
                ({"threshold": 1.5}, "calibration.mood.threshold: Input should be less than or equal to 1"),
                ({"precision": 1}, "calibration.mood.precision: Input should be less than 1"),
                ({"rows": 0}, "calibration.mood.rows: Input should be greater than or equal to 1"),
                ({"split": "mine"}, "calibration.mood.split: Input should be 'train', 'validation' or 'test'"),
                ({"more": 1}, "calibration.mood.more: Extra inputs are not permitted"),
            )
        ],
        pytest.param({"calibration": [FOUND]}, "calibration: Input should be an object", id="a list of calibrations"),
        pytest.param(
            {"calibration": {"else": FOUND}},
            "calibration wants tasks of the card that have label words; got 'else'",
            id="calibrated for a task of another prompt",
        ),
        pytest.param(
            {"tasks": [{"name": "mood", "template": "{text}", "target": "{title}"}], "calibration": {"mood": FOUND}},
            "calibration wants tasks of the card that have label words; got 'mood'",
            id="calibrated for free text",
        ),
        pytest.param({"kept": "x"}, "kept: Input should be a valid integer", id="a step that is a word"),
        pytest.param({"seeds": [1]}, "seeds: Input should be an object", id="seeds that are a list"),
        pytest.param(
            {"tasks": [TASK | {"template": "{text}" * 2_000_000}]},
            "template wants at most 1,000,000 characters; got 12,000,000",
            id="a template of twelve megabytes",
        ),
    ],
)
def test_a_strangers_card_is_refused_in_a_line(backbone, tmp_path, changes, says):
    folder = prompt_folder(tmp_path / "prompt", backbone, **changes)
    assert says in said(lambda: MultitaskPrompt.from_pretrained(folder), ArtifactError)


def test_a_card_with_a_calibration_is_read_and_one_of_an_earlier_version_has_none(backbone, tmp_path):
    folder = prompt_folder(tmp_path / "prompt", backbone)
    old = MultitaskPrompt.from_pretrained(folder).card
    assert (old.calibration, old.calibration_of("mood")) == (None, None)
    assert "calibration" not in old.model_dump_json(exclude_none=True)  # which earlier versions would refuse
    folder = prompt_folder(tmp_path / "prompt", backbone, calibration={"mood": FOUND})
    card = MultitaskPrompt.from_pretrained(folder).card
    assert card.calibration_of("mood").model_dump() == FOUND
    assert type(card).model_validate_json(card.model_dump_json(exclude_none=True)) == card


def test_a_card_that_is_nested_without_end_is_refused_in_a_line(backbone, tmp_path):
    for depth in (150, 199, 5_000, 100_000):
        folder = prompt_folder(tmp_path / "prompt", backbone)
        tensors = {"shared": torch.ones(4, 16), "u": torch.ones(1, 4, 1), "v": torch.ones(1, 1, 16)}
        nested = '{"config": {"a": ' + "[" * depth + "]" * depth + "}}"
        save_file(tensors, folder / "prompt.safetensors", metadata={"card": nested})
        said(lambda folder=folder: MultitaskPrompt.from_pretrained(folder), ArtifactError)


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param({"shared": torch.tensor(1.0)}, id="a scalar"),
        pytest.param({"u": torch.ones(4, 1)}, id="no tasks' dimension"),
        pytest.param({"u": torch.ones(0, 4, 1), "v": torch.ones(0, 1, 16)}, id="no tasks"),
        pytest.param({"v": torch.ones(1, 2, 16)}, id="two ranks"),
        pytest.param({"shared": torch.ones(4, 16, dtype=torch.complex64)}, id="complex numbers"),
        pytest.param({"shared": torch.ones(4, 16, dtype=torch.int8)}, id="whole numbers"),
    ],
)
def test_a_strangers_tensors_are_refused_in_a_line(backbone, tmp_path, tensors):
    folder = prompt_folder(tmp_path / "prompt", backbone, tensors=tensors)
    assert said(lambda: MultitaskPrompt.from_pretrained(folder), ArtifactError).startswith(str(folder))


def test_a_width_that_is_not_the_backbones_is_refused_whatever_the_card_claims(backbone, tmp_path):
    folder = prompt_folder(tmp_path / "prompt", backbone, width=15)
    text = said(lambda: Predictor.from_pretrained(folder, backbone), BackboneMismatch)
    assert text.startswith("the prompt of mood is 15 wide, and tiny-t5 16: it was never trained for that model")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ('{"backbone": []}', "backbone wants {name: text}; got []"),
        ('{"backbone": {"name": 5}}', "backbone wants {name: text}; got {'name': 5}"),
        ('{"tasks": 5}', "tasks wants a list of tasks; got 5"),
        ('{"tasks": ["a"]}', "tasks wants a list of tasks; got ['a']"),
        ('{"data_dir": 5}', "data_dir wants a folder's name; got 5"),
        ("[" * 100_000, "it is no JSON"),
        ('{"a": ' + "9" * 10_000 + "}", "it is no JSON"),
    ],
)
def test_an_odd_configuration_beside_a_prompt_is_refused_in_a_line(backbone, tmp_path, config, says):
    folder = prompt_folder(tmp_path / "prompt", backbone)
    (folder / "config.json").write_text(config)
    for call in (lambda: stored_config(folder), lambda: MultitaskPrompt.from_pretrained(folder)):
        assert says in said(call, ArtifactError)


def test_odd_fields_of_a_backbone_beside_a_prompt_are_refused_by_name(backbone, tmp_path):
    folder = prompt_folder(tmp_path / "prompt", backbone)
    (folder / "config.json").write_text('{"backbone": {"name": "x", "revision": [1], "dtype": "int4"}}')
    with pytest.raises(MptuneError, match=r"config\.json:\n  - revision: .*\n  - dtype: "):
        backbone_of(MultitaskPrompt.from_pretrained(folder), folder)


def test_steps_that_are_no_number_do_not_stop_a_card_from_being_shown(backbone, tmp_path):
    folder = prompt_folder(tmp_path / "prompt", backbone, kept=0, config={"steps": "many"})
    assert not MultitaskPrompt.from_pretrained(folder).card.kept_start


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": ["x"]}, {"peft_type": "x" * 10_000_000}, {"num_virtual_tokens": "4"}, {"num_virtual_tokens": 5},
        {"base_model_name_or_path": {}}, {"task_type": 3}, {"task_type": "x" * 10_000_000},
        {"num_transformer_submodules": "1"},
    ],
)  # fmt: skip
def test_an_odd_adapter_is_refused_in_a_line(backbone, tmp_path, changes):
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "num_transformer_submodules": 1, **changes}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"prompt_embeddings": torch.ones(4, 16)}, tmp_path / "adapter_model.safetensors")
    said(lambda: import_peft(tmp_path, backbone=backbone))


def test_an_adapter_that_is_nested_without_end_is_refused_in_a_line(backbone, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"a": ' + "[" * 100_000)
    assert "is damaged: it is no JSON object" in said(lambda: import_peft(tmp_path, backbone=backbone))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    header = {"card": '{"config": ' + "[" * 100_000}
    save_file({"prompt_embeddings": torch.ones(4, 16)}, tmp_path / "adapter_model.safetensors", metadata=header)
    assert "adapter_model.safetensors is damaged (" in said(lambda: import_peft(tmp_path, backbone=backbone))


def test_what_a_stranger_wrote_is_shown_by_the_command_line_and_not_sent(cli, backbone, tmp_path, terminal):
    evil = "\x1b]0;owned\x07"
    folder = prompt_folder(tmp_path / "prompt", backbone, stage=evil, versions={"x": evil})
    for arguments in (("show", folder), ("show", folder, "--json"), ("evaluate", "--prompt", folder, "--task", evil)):
        _, out, err = cli(*arguments)
        assert "\x1b]0;" not in out + err
        assert "owned" in out + err
