"""One distillation step against a step that learns from labels alone, as a teacher's.

- *kept*: the teachers' outputs come from the file that source training writes before its first step.
- *asked*: every step asks the teachers, as public code does.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common import (
    arguments,
    data_notes,
    in_turn,
    milliseconds,
    model_folder,
    options_of,
    ours,
    ratio,
    report,
    rows_of,
    shown,
    start,
    update,
)
from mptune.config import DistillConfig
from mptune.model.backbone import Backbone
from mptune.model.batch import Pick
from mptune.model.encoding import Encoded, collate
from mptune.stages.distillation import distillation_loss
from mptune.stages.losses import supervised_loss
from mptune.stages.optimization import two_speed
from mptune.stages.sampling import mixing_rates, stochastic_tasks
from mptune.stages.teacher_outputs import TeacherOutputs

TASKS = ("mnli", "qqp", "sst2")
LENGTH = 20


def step_of(
    backbone: Backbone, data: list[Encoded], taught_by: TeacherOutputs | None, batches: list[list[Pick]]
) -> Callable[[int], object]:
    """Return one step as source training takes it; without teachers, that of the labels."""
    config = DistillConfig()
    prompt = start([each.task for each in data], backbone, LENGTH)
    optimizer = two_speed(prompt, config, config.shared_lr * backbone.embedding_rms, config.task_lr)
    layers = config.hidden_layers if taught_by else ()

    def step(number: int) -> None:
        picks = batches[number]
        batch = collate(picks, data, backbone)
        prompts = prompt(batch.tasks)
        learned = backbone(prompts, batch, layers)
        loss = supervised_loss(backbone, prompts, batch, learned.logits, config.label_weight)
        if taught_by:
            loss = loss + distillation_loss(learned, taught_by(picks, batch), batch, config)
        update(loss, optimizer)

    return step


def compare(model: str, rounds: int, data_dir: Path | None) -> dict[str, Any]:
    """Return the figures of one model."""
    backbone = ours(model_folder(model))
    data = [rows_of(task, backbone, 16 * rounds, data_dir, prompt_length=LENGTH) for task in TASKS]
    sizes = [len(each.inputs) for each in data]
    stream = stochastic_tasks(sizes, mixing_rates(sizes, "proportional", 2**18), 16, torch.Generator().manual_seed(0))
    batches = list(itertools.islice(stream, rounds))
    random = torch.Generator().manual_seed(1)
    teachers = torch.randn(len(TASKS), LENGTH, backbone.width, generator=random) * backbone.embedding_rms
    needed = [pick for picks in batches for pick in picks]
    began = time.perf_counter()
    kept = TeacherOutputs(backbone, teachers, data, (-1,), needed, room=2**33)
    ahead = time.perf_counter() - began
    asked = TeacherOutputs(backbone, teachers, data, (-1,), needed, room=0)
    seconds = in_turn(
        {"teacher step": step_of(backbone, data, None, batches),
         "kept": step_of(backbone, data, kept, batches),
         "asked": step_of(backbone, data, asked, batches)}, rounds, warmup=rounds)  # fmt: skip
    return {
        "model": model,
        "tasks": [each.task.name for each in data],
        "rounds": rounds,
        "dtype": backbone.config.dtype,
        "ms": {name: milliseconds(values) for name, values in seconds.items()},
        "kept_vs_teacher_step": ratio(seconds["kept"], seconds["teacher step"]),
        "asked_vs_teacher_step": ratio(seconds["asked"], seconds["teacher step"]),
        "ahead_ms_per_row": round(1e3 * ahead / len(set(needed)), 2),
    }


def main() -> None:
    """Run the benchmark."""
    options = options_of(arguments(str(__doc__).partition("\n")[0]))
    found = compare(options.backbone, 4 if options.quick else 24, options.data)
    cells = [
        ["teacher step (labels alone)", f"{found['ms']['teacher step']:.0f} ms", ""],
        ["distillation, outputs kept", f"{found['ms']['kept']:.0f} ms", shown(found["kept_vs_teacher_step"])],
        ["distillation, teachers asked", f"{found['ms']['asked']:.0f} ms", shown(found["asked_vs_teacher_step"])],
    ]
    notes = [*data_notes(options.data),
             f"To keep a row's outputs takes {found['ahead_ms_per_row']} ms, once, before the first step."]  # fmt: skip
    report("distillation_step", ["step", "median", "vs teacher step"], cells, found, options.out, notes)


if __name__ == "__main__":
    main()
