"""Folders to backbones: what loads is checked, known by its fingerprint, and refused where something is missing."""

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mptune.config import BackboneConfig
from mptune.errors import BackboneError
from mptune.model import loading
from mptune.model.loading import _device, load_backbone, multiplies_bfloat16
from mptune.model.scoring import generate
from mptune.stages.losses import task_loss
from support.models import FAMILIES, batch_of, make_backbone, saved, some_prompts


@pytest.fixture
def folder(any_backbone, tmp_path):
    """A folder with one model of every family, as save_pretrained leaves it."""
    return saved(any_backbone, tmp_path / "model")


def load(path, **changes):
    return load_backbone(BackboneConfig(name=str(path), **{"device": "cpu", **changes}))


def test_a_saved_folder_loads_and_answers_the_same(any_backbone, folder):
    loaded = load(folder)
    for name, p in any_backbone.model.named_parameters():
        assert torch.equal(loaded.model.get_parameter(name), p), name
    any_backbone.model.double()
    loaded.model.double()  # a loaded model may attend with another kernel, which rounds otherwise
    prompts, batch = some_prompts(any_backbone), batch_of(any_backbone)
    own = any_backbone(prompts, batch).logits
    # The norms of transformers round to float32 even then; those of a loaded model do not.
    torch.testing.assert_close(loaded(prompts, batch_of(loaded)).logits, own, atol=1e-5, rtol=0)
    assert generate(loaded, prompts, batch, 6) == generate(any_backbone, prompts, batch, 6)


def test_bfloat16_changes_the_numbers_and_not_the_identity(any_backbone, folder):
    loaded = load(folder, dtype="bfloat16")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.fingerprint == any_backbone.fingerprint == load(folder).fingerprint
    prompts = some_prompts(loaded).requires_grad_()
    batch = batch_of(loaded)
    task_loss(loaded(prompts, batch).logits, batch.labels).backward()
    assert prompts.grad.dtype == torch.float32


def test_a_name_alone_is_enough(backbone, tmp_path):
    assert load_backbone(str(saved(backbone, tmp_path / "model"))).fingerprint == backbone.fingerprint


def test_auto_takes_bfloat16_only_where_the_processor_multiplies_it(backbone, tmp_path):
    native = multiplies_bfloat16(torch.device("cpu"))
    loaded = load(saved(backbone, tmp_path / "model"), dtype="auto")
    assert loaded.model.dtype == (torch.bfloat16 if native else torch.float32)


def test_different_models_have_different_fingerprints():
    prints = {make_backbone(family, seed).fingerprint for family in FAMILIES for seed in (0, 1)}
    assert len(prints) == 2 * len(FAMILIES)
    assert make_backbone("t5", seed=0).fingerprint == make_backbone("t5", seed=0).fingerprint


def test_another_vocabulary_is_another_model(backbone):
    other = make_backbone("t5")
    other.tokenizer.add_tokens(["zebra"])
    assert other.fingerprint != backbone.fingerprint


def test_a_name_that_nothing_carries_is_said_in_one_line():
    with pytest.raises(BackboneError) as error:
        load("nobody/no-such-model")
    message = str(error.value)
    assert message.startswith("the backbone 'nobody/no-such-model' cannot be loaded: ")
    assert message.endswith("Give a Hugging Face id, a folder with config.json, or `embedded`.")
    assert "Traceback" not in message
    assert "\n" not in message


@pytest.mark.parametrize("device", ["tpu9", "", "cuda:99", "hpu:77", "meta"])
def test_a_device_that_does_not_exist_is_refused_by_its_name(device, backbone, tmp_path):
    with pytest.raises(BackboneError) as error:
        load(saved(backbone, tmp_path / "model"), device=device)
    message = str(error.value)
    assert message.startswith(f"the device {device!r} cannot be used: ")
    assert message.endswith(". Try cpu or auto.")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("rank", "device"),
    [
        pytest.param(None, "cuda", id="one process"),
        pytest.param("1", "cuda:1", id="the second of two"),
        pytest.param("2", "cuda:0", id="more processes than GPUs"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(rank, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert _device("auto") == torch.device(device)
    assert _device("cpu") == torch.device("cpu")


def test_damaged_weights_are_said_and_not_shown_as_a_traceback(backbone, tmp_path):
    path = saved(backbone, tmp_path / "model")
    (path / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(BackboneError, match=r"cannot be loaded: .*header"):
        load(path)


def test_weights_of_another_shape_are_refused(backbone, tmp_path):
    path = saved(backbone, tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    weights["encoder.final_layer_norm.weight"] = torch.ones(3)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"cannot be loaded: "):
        load(path)


def test_missing_weights_are_never_filled_with_random_numbers(backbone, tmp_path):
    path = saved(backbone, tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    del weights["encoder.final_layer_norm.weight"], weights["decoder.final_layer_norm.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks 2 of its weights, among them 'decoder\.final_layer_norm\.weight'"):
        load(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_without_its_tokenizer_is_refused(family, tmp_path):
    make_backbone(family).model.save_pretrained(tmp_path / "model")
    with pytest.raises(BackboneError, match=r"its tokenizer knows \d+ pieces|cannot be loaded"):
        load(tmp_path / "model")


# -- local is local ---------------------------------------------------------------------------------------------------


def test_a_folder_is_known_by_its_whole_path(backbone, tmp_path, monkeypatch):
    folder = saved(backbone, tmp_path / "models" / "my-t5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("models/my-t5", "./models/my-t5", "models/../models/my-t5", "~/models/my-t5", folder):
        assert load_backbone(name).config.name == str(folder)
    monkeypatch.chdir(tmp_path / "models")
    assert load("my-t5").config.name == str(folder)


@pytest.mark.parametrize(
    "name", ["models/my-t5", "./x", "../x", "/x", "~/x", "a/b/c", ".", " ", "a-file", "a-file/x", "./owner/name"]
)
def test_a_mistyped_path_is_not_asked_of_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", lambda *_, **__: pytest.fail("it was looked up"))
    (tmp_path / "models").mkdir()
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if name == ".":
        (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BackboneError) as error:
        load(name)
    said = str(error.value)
    if name == ".":
        assert said.startswith("the folder '.' holds a PEFT adapter and no backbone. Give the folder of its model;")
    else:
        assert said == (
            f"there is no folder {name!r} with a backbone, and as a path it is not looked up on the hub. Check the "
            "spelling, or give a Hugging Face id, or `embedded`."
        )


@pytest.mark.parametrize("name", ["gpt2", "google/flan-t5-small"])
def test_other_names_are_those_of_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert loading._located(name) == name


# -- folders of strangers ---------------------------------------------------------------------------------------------


def refused(path):
    """What is said of a folder that is not loaded: one line."""
    with pytest.raises(BackboneError) as error:
        load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused_by_its_name(value, backbone, tmp_path):
    backbone.model.decoder.block[1].layer[0].SelfAttention.k.weight.data[3, 4] = value
    said = refused(saved(backbone, tmp_path / "model"))
    assert "numbers that are not finite in 'decoder.block.1.layer.0.SelfAttention.k.weight'. Download or save" in said


def test_large_weights_are_not_taken_for_infinite_ones(backbone, tmp_path):
    backbone.model.shared.weight.data[:2] = 3e38  # whose sum overflows
    load(saved(backbone, tmp_path / "model"))


def test_a_padding_token_without_an_embedding_is_replaced_and_changes_no_answer(tmp_path):
    known, added = make_backbone("gpt2"), make_backbone("gpt2")
    added.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    rows = (
        len(added.tokenizer) - 1
    )  # one embedding too few, as a tokenizer has that got a token and a model that did not
    for each in (known, added):
        each.model.resize_token_embeddings(rows)
        each.model.transformer.wte.weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    folders = [saved(each, tmp_path / name) for each, name in ((known, "known"), (added, "added"))]
    one, other = (load(folder) for folder in folders)
    assert other.tokenizer.pad_token_id < rows
    counted = batch_of(one).labels != -100
    logits = [each(some_prompts(one), batch_of(each)).logits[counted] for each in (one, other)]
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=0)
    assert generate(other, some_prompts(one), batch_of(other), 6) == generate(one, some_prompts(one), batch_of(one), 6)


def test_other_tokens_without_an_embedding_are_refused_by_name(tmp_path):
    backbone = make_backbone("gpt2")
    backbone.tokenizer.add_tokens(["[NEW]", "[OLD]"])
    backbone.model.resize_token_embeddings(len(backbone.tokenizer) - 2)
    said = refused(saved(backbone, tmp_path / "model"))
    assert "and its tokenizer 2 tokens beyond them, among them '[NEW]'. Resize the embeddings (model.resize" in said


class _Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "a file is damaged or ends too early (EOFError).", id="empty"),
        pytest.param(pickle.dumps(_Evil()), "Weights only load failed.", id="evil"),
    ],
)
def test_a_pickle_that_is_empty_or_evil_is_said_in_a_line_and_not_run(content, said, backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = saved(backbone, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    assert said in refused(folder)
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            dict(hidden_size="x"), "'hidden_size': TypeError: Field 'hidden_size' expected int, got", id="type"
        ),
        pytest.param(dict(hidden_size=-1), "The hidden size (-1) is not a multiple", id="negative"),
        pytest.param(dict(num_attention_heads=0), "integer modulo by zero.", id="no heads"),
        pytest.param(dict(rope_parameters=5), "Field 'rope_parameters' with value 5", id="number for a mapping"),
        pytest.param(dict(hidden_act="nope"), "(KeyError 'nope').", id="unknown name"),
        pytest.param(dict(dtype="nope"), "module 'torch' has no attribute 'nope'.", id="unknown type"),
        pytest.param(
            dict(num_hidden_layers=0),
            "has num_hidden_layers: 0 in its config.json; wanted are 1 to 10,000",
            id="no layers",
        ),
        pytest.param(dict(num_hidden_layers=10**6), "has num_hidden_layers: 1000000 in its config", id="a million"),
        pytest.param(
            dict(attn_implementation="someone/kernel"),
            "names 'someone/kernel' as its attn_implementation: a repository's own code is never run. Remove that line",
            id="a repository's code",
        ),
    ],
)
def test_what_is_wrong_in_a_config_is_said_in_a_line(changes, said, tmp_path):
    folder = saved(make_backbone("llama"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    assert said in refused(folder)


@pytest.mark.parametrize("token", [-1, 400, 10**12, "x", [1], {}, float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["decoder_start_token_id", "bos_token_id"])
def test_a_decoder_begins_with_a_token_of_the_models_own(field, token, backbone, tmp_path):
    folder = saved(backbone, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"decoder_start_token_id": None, field: token}
    (folder / "config.json").write_text(json.dumps(config))
    assert re.search("names no token of its 400 as decoder_start_token_id|cannot be loaded: ", refused(folder))


@pytest.mark.parametrize("positions", [0, -1, 1.5, "x", [1], {"a": 1}, float("nan")])
def test_a_number_of_positions_that_is_none_is_refused(positions, backbone, tmp_path):
    folder = saved(backbone, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": positions}
    (folder / "config.json").write_text(json.dumps(config))
    assert f"has max_position_embeddings: {positions!r} in its config.json; wanted is a number" in refused(folder)


@pytest.mark.parametrize("most", ["x", [1], {"a": 1}])
def test_what_a_tokenizer_fails_over_in_use_is_said_when_it_is_loaded(most, backbone, tmp_path):
    folder = saved(backbone, tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": most}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert "cannot be loaded: '>' not supported between instances of" in refused(folder)


@pytest.mark.parametrize("kernel", ["someone/kernel", "paged|someone/kernel"])
def test_a_repositorys_code_is_not_fetched_for_t5_either(kernel, backbone, tmp_path):
    folder = saved(backbone, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | dict(_attn_implementation=kernel)))
    assert "a repository's own code is never run" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["", "5", "[" * 100_000], ids=["empty", "a number", "nested"])
def test_a_damaged_file_of_a_folder_is_said_in_a_line(name, content, tmp_path):
    folder = saved(make_backbone("llama"), tmp_path / "model")
    (folder / name).write_text(content)
    try:
        load(folder)  # transformers makes do without some of them
    except BackboneError as error:
        said = str(error)
    else:
        return
    assert "cannot be loaded: " in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("file", "field", "value", "says"),
    [
        ("tokenizer_config.json", "model_max_length", "abc", "cannot be loaded: '>' not supported"),
        ("config.json", "relative_attention_max_distance", 0, "cannot read a text: ValueError (math domain error)"),
        ("config.json", "d_kv", 1_000_000, "has d_kv: 1000000 in its config.json; wanted are at most 262,144"),
    ],
)
def test_a_configuration_that_fails_only_in_use_is_said_at_once(tmp_path, file, field, value, says):
    folder = saved(make_backbone("t5"), tmp_path / "model")
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**values, field: value}))
    with pytest.raises(BackboneError, match=re.escape(says)):
        load(folder)
