"""The three stages together, on a real tiny model."""

import torch

from mptune.config import AdaptConfig, DistillConfig, TeachConfig
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach


def test_teachers_distillation_and_adaptation_run_one_after_the_other(backbone, toy_tasks, tmp_path):
    *sources, target = toy_tasks
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    config = TeachConfig(prompt_length=4, steps=4, validate_every=2)
    teachers = [teach(task, backbone, config, out=tmp_path / "teachers" / task.name) for task in sources]
    multitask = distill(
        sources, teachers, backbone, DistillConfig(steps=4, validate_every=2), out=tmp_path / "multitask"
    )
    prompt = adapt(multitask, target, backbone, AdaptConfig(steps=4, validate_every=2), out=tmp_path / "target")
    assert prompt.collapse().shape == (1, 4, backbone.width)
    for name, p in backbone.model.named_parameters():
        assert torch.equal(p, before[name]), name
        assert p.grad is None, name
