"""The whole method in a process of its own, which a test may kill."""

import torch

from mptune.config import AdaptConfig, BackboneConfig, DistillConfig, TeachConfig
from mptune.model.loading import load_backbone
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach


def all_stages(model, out, tasks, dropout, threads, steps=10):
    """Teach two tasks, distill them, adapt to the third: what is run here whole, and there killed."""
    torch.set_num_threads(threads)
    backbone = load_backbone(BackboneConfig(name=str(model), device="cpu"))
    common = {"steps": steps, "validate_every": 2, "dropout": dropout}
    config = TeachConfig(prompt_length=4, lr=0.3, save_every=1, **common)
    teachers = [teach(task, backbone, config, out=out / f"teach{n}") for n, task in enumerate(tasks[:2])]
    config = DistillConfig(shared_lr=0.3, save_every=2, **common)
    source = distill(tasks[:2], teachers, backbone, config, out=out / "distill")
    config = AdaptConfig(shared_lr=0.3, save_every=1, **common)
    adapt(source, tasks[2], backbone, config, out=out / "adapt")
