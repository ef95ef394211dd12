"""What a GPU could change: where tensors lie, and numbers. Skipped where there is none."""

import copy

import pytest
import torch

from mptune.answers.prediction import Predictor
from mptune.config import AdaptConfig, BackboneConfig, DistillConfig, TeachConfig, WeightsConfig
from mptune.model.backbone import Backbone
from mptune.model.graphs import MET
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.adaptation import Target, adapt, adapt_together
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.stages.training import Learner
from mptune.stages.weights import fine_tuning, tune_weights
from support.models import FAMILIES, batch_of, make_backbone, some_prompts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def on_gpu(backbone):
    """The same model on the GPU, in float32."""
    config = BackboneConfig(name=backbone.config.name, device="cuda")
    return Backbone(copy.deepcopy(backbone.model).to("cuda"), backbone.tokenizer, config)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_hidden_states_and_gradients_are_those_of_the_processor(family):
    here = make_backbone(family)
    found = []
    for backbone in (here, on_gpu(here)):
        prompts = some_prompts(backbone).to(backbone.device).requires_grad_(True)
        out = backbone(prompts, batch_of(backbone), (-1,))
        counted = batch_of(backbone).labels != -100
        out.logits[counted].logsumexp(-1).sum().backward()
        found.append([out.logits[counted].cpu(), prompts.grad.cpu()])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 1e-4 * one.norm()


def test_every_stage_returns_a_prompt_that_lies_where_one_from_a_folder_does(tmp_path, toy_tasks):
    backbone = on_gpu(make_backbone("t5"))
    few = dict(steps=3, validate_every=2, batch_size=4)
    first = teach(toy_tasks[0], backbone, TeachConfig(prompt_length=4, **few), out=tmp_path / "first")
    second = teach(toy_tasks[1], backbone, TeachConfig(prompt_length=4, **few), out=tmp_path / "second")
    teachers = [MultitaskPrompt.from_pretrained(tmp_path / "first"), second]
    source = distill(toy_tasks[:2], teachers, backbone, DistillConfig(**few))
    target = adapt(source, toy_tasks[2], backbone, AdaptConfig(**few, initialise="closest"))
    assert {p.device.type for made in (first, source, target) for p in made.parameters()} == {"cpu"}
    predictor = Predictor(backbone, [target, *teachers])
    rows = [{"task": name, "text": "a cat is good"} for name in ("colour", "mood", "speed")]
    assert [said.task for said in predictor.predict(rows)] == ["colour", "mood", "speed"]


def test_a_run_that_was_stopped_goes_on_where_it_stood(tmp_path, toy_task, monkeypatch):
    backbone = on_gpu(make_backbone("t5"))
    config = TeachConfig(prompt_length=4, steps=6, validate_every=2, save_every=2, batch_size=4)
    through = teach(toy_task, backbone, config)
    save = Learner.save

    def stop(self):
        save(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        teach(toy_task, backbone, config, out=tmp_path / "out")
    monkeypatch.undo()
    resumed = teach(toy_task, backbone, config, out=tmp_path / "out")
    torch.testing.assert_close(resumed.shared, through.shared)


def test_targets_that_are_adapted_together_arrive_where_each_does_alone(tmp_path, toy_tasks):
    backbone = on_gpu(make_backbone("t5"))
    few = dict(steps=3, validate_every=2, batch_size=4)
    source = teach(toy_tasks[0], backbone, TeachConfig(prompt_length=4, **few))
    configs = [AdaptConfig(**few, shots=4, seed=seed) for seed in range(3)]
    together = adapt_together(source, [Target((toy_tasks[1],), config) for config in configs], backbone)
    for config, made in zip(configs, together, strict=True):
        alone = adapt(source, toy_tasks[1], backbone, config)
        torch.testing.assert_close(made.shared, alone.shared, rtol=1e-3, atol=1e-4)


def test_one_process_trains_on_the_processor_and_on_the_gpu_in_turn(toy_task):
    here = make_backbone("t5")
    config = TeachConfig(prompt_length=4, steps=3, validate_every=2, batch_size=4)
    first, second, third = (teach(toy_task, backbone, config) for backbone in (here, on_gpu(here), here))
    assert torch.equal(first.shared, third.shared)
    torch.testing.assert_close(second.shared, first.shared, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_recorded_pass_is_the_pass_and_its_gradient_too(family):
    backbone = on_gpu(make_backbone(family))
    found = []
    for _ in range(MET + 2):
        prompts = some_prompts(backbone).to("cuda").requires_grad_(True)
        out = backbone(prompts, batch_of(backbone), (-1,))
        with torch.no_grad():  # a teacher's pass, between a student's and its gradient
            taught = backbone(2 * prompts.detach(), batch_of(backbone), (-1,))
        counted = batch_of(backbone).labels != -100
        (out.logits[counted] - taught.logits[counted]).logsumexp(-1).sum().backward()
        found.append([out.logits[counted].detach(), taught.logits[counted], prompts.grad])
    assert backbone.graphs.replays == 6
    for one, other in zip(found[0], found[-1], strict=True):
        assert (one - other).norm() < 1e-5 * one.norm()


def test_weights_learn_as_on_the_processor(toy_task):
    config = WeightsConfig(steps=8, batch_size=4, lr=1e-2, validate_every=8)
    here = tune_weights(fine_tuning, [toy_task], make_backbone("t5"), config)
    there = tune_weights(fine_tuning, [toy_task], on_gpu(make_backbone("t5")), config)
    for one, other in zip(here.backbone.model.parameters(), there.backbone.model.parameters(), strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-2, atol=1e-3)
