"""Folders to backbones: what loads is checked, known by its fingerprint, and refused where something is missing."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from mptune.config import BackboneConfig
from mptune.errors import BackboneError
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
