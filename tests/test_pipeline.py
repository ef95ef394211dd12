"""The three stages together, on a real tiny model."""

import torch

from mptune.answers.evaluation import evaluate
from mptune.config import AdaptConfig, DistillConfig, TeachConfig
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.tasks.data import TaskRows
from support.toys import files_opened


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


def test_who_hands_rows_on_reads_every_file_once(backbone, toy_tasks, monkeypatch):
    opened = files_opened(monkeypatch)
    *sources, target = [TaskRows(task) for task in toy_tasks]
    few = {"steps": 1, "validate_every": 1}
    teachers = [teach(rows, backbone, TeachConfig(prompt_length=4, **few)) for rows in sources]
    multitask = distill(sources, teachers, backbone, DistillConfig(**few))
    for seed in (0, 1):
        prompt = adapt(multitask, target, backbone, AdaptConfig(shots=4, seed=seed, **few))
        evaluate(prompt, target, backbone, split="test")
    assert len(opened) == 9
    assert set(opened.values()) == {1}
