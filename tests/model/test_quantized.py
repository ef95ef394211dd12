"""A backbone in 4 or 8 bits takes less memory, lets a prompt learn as before, and says what it cannot do."""

import pytest
import torch

from mptune.config import AdaptConfig, BackboneConfig, TeachConfig, WeightsConfig
from mptune.errors import ConfigError, MissingExtraError, ResumeError, UsageError
from mptune.model import quantized
from mptune.model.batch import IGNORE
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.ensemble import teachers_of
from mptune.stages.teachers import teach
from mptune.stages.weights import fine_tuning, tune_weights
from mptune.tasks.data import TaskRows
from support.models import batch_of, make_backbone, saved

pytest.importorskip("bitsandbytes", reason="bitsandbytes is an extra")
FAMILIES = ["llama", "gpt2", "t5"]
TEXTS, TARGETS = ["the sky is blue", "a cat sat on mat and the dog ran fast"], ["yes", "not very good"]


@pytest.fixture(autouse=True)
def _as_where_bfloat16_is_multiplied(monkeypatch):
    """Let bitsandbytes do on every processor what it does on those."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path):
    """A tiny model as transformers saves it, with weights as small as those of trained ones."""
    backbone = make_backbone(request.param)
    with torch.no_grad():
        for weights in backbone.model.parameters():
            weights.mul_(0.3)
    return saved(backbone, tmp_path / "model")


def loaded(folder, bits, **changes):
    return load_backbone(BackboneConfig(name=str(folder), bits=bits, device="cpu", **changes))


def in_bits(backbone):
    """The layers that hold few bits."""
    kinds = ("Linear4bit", "Linear8bitLt")
    return [module for module in backbone.model.modules() if type(module).__name__ in kinds]


@pytest.mark.parametrize("bits", [4, 8])
def test_layers_are_in_few_bits_and_embeddings_and_answers_are_not(folder, bits):
    whole, few = loaded(folder, None), loaded(folder, bits)
    assert {layer.weight.element_size() for layer in in_bits(few)} == {1}
    assert few.dtype == torch.float32
    assert torch.equal(few.embeddings, whole.embeddings)
    assert few.fingerprint == whole.fingerprint  # so that a prompt fits both
    assert type(few.model.get_output_embeddings()) is torch.nn.Linear
    assert not any(p.requires_grad for p in few.model.parameters())


@pytest.mark.parametrize("bits", [4, 8])
def test_it_answers_nearly_as_the_whole_and_a_prompt_gets_nearly_its_gradient(folder, bits):
    found = []
    for each in (loaded(folder, None), loaded(folder, bits)):
        prompts = torch.randn(2, 3, each.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
        batch = batch_of(each, TEXTS, TARGETS)
        logits = each(prompts, batch).logits[batch.labels != IGNORE]
        logits.logsumexp(-1).sum().backward()
        found.append((logits.detach().flatten(), prompts.grad.flatten()))
    for whole, few in zip(*found, strict=True):
        assert torch.cosine_similarity(whole, few, dim=0) > 0.9
        assert not torch.equal(whole, few)


def test_a_pass_without_gradients_leaves_a_prompt_its_gradient(folder):
    few, found = loaded(folder, 4), []
    prompts = torch.randn(2, 3, few.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    batch = batch_of(few, TEXTS, TARGETS)
    for _ in range(2):
        few(prompts, batch).logits[batch.labels != IGNORE].logsumexp(-1).sum().backward()
        found.append(prompts.grad.clone())
        prompts.grad = None
        with torch.no_grad():
            few(prompts.detach(), batch)
    torch.testing.assert_close(*found)


def test_a_prompt_learns_and_is_read_by_the_whole_backbone(folder, toy_task, tmp_path):
    few = loaded(folder, 4)
    prompt = teach(toy_task, few, TeachConfig(steps=3, prompt_length=4, validate_every=3), out=tmp_path / "prompt")
    assert prompt.shared.dtype == torch.float32
    MultitaskPrompt.from_pretrained(tmp_path / "prompt").check_backbone(loaded(folder, None))


def test_a_run_does_not_go_on_in_other_bits(folder, toy_task, tmp_path):
    config = TeachConfig(steps=2, prompt_length=4, validate_every=2)
    teach(toy_task, loaded(folder, 8), config, out=tmp_path / "prompt")
    with pytest.raises(ResumeError) as told:
        teach(toy_task, loaded(folder, 4), config, out=tmp_path / "prompt")
    assert "bits" in str(told.value)


def test_its_weights_do_not_learn_and_its_teachers_are_prompts(folder, toy_task):
    few = loaded(folder, 4)
    with pytest.raises(UsageError) as told:
        tune_weights(fine_tuning, [toy_task], few, WeightsConfig(steps=1))
    assert str(told.value) == (
        f"the weights of {folder} are in 4 bits and cannot learn; prompts can. Leave away backbone.bits for a method "
        "that trains weights."
    )
    config = AdaptConfig(steps=1, validate_every=1)
    source = teach(toy_task, few, TeachConfig(steps=1, prompt_length=4, validate_every=1))
    _, teachers = teachers_of(source, TaskRows.of(toy_task, None), few, config)
    assert len(teachers) == 2
    assert all(backbone is few for backbone, _ in teachers)


def test_bits_may_be_typed_and_are_four_or_eight():
    assert [BackboneConfig(bits=said).bits for said in ("4", 8, None)] == [4, 8, None]
    for said in ("5", "four", "4.0"):
        with pytest.raises(ConfigError, match="bits: wants 4 or 8; got"):
            BackboneConfig.read({"bits": said}, "backbone")


def test_without_its_library_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setattr(quantized, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError) as told:
        loaded(folder, 4)
    assert str(told.value) == (
        "a backbone in 4 bits needs more libraries. Install them: pip install 'mptune[quantized]'"
    )
