"""Training a baseline on one task, or on several at once, with the loop, the rows and the selection of the stages."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mptune.backbone import FrozenBackbone
from mptune.baselines.attempt import Attempt
from mptune.baselines.dept import Dept
from mptune.baselines.weights import WEIGHTS, BareText
from mptune.batching import collate
from mptune.config import AttemptConfig, DeptConfig, TrainingConfig, WeightsConfig
from mptune.errors import UnknownNameError
from mptune.losses import task_loss
from mptune.readers import Baseline
from mptune.runs import opened
from mptune.sampling import tasks_alike
from mptune.tasks import Task
from mptune.training import Learner, Taking, identity_of, local_of, make_card, train, training_data, with_steps

Groups = list[dict[str, Any]]  # of an optimizer: parameters and their learning rate


@dataclass(frozen=True)
class Tuned:
    """A trained baseline, in memory, and how it came to be."""

    reader: Baseline
    backbone: FrozenBackbone  # with which it reads: a thawed copy where weights were learnt
    metrics: tuple[dict[str, Any], ...]  # as logged, by step; empty without a folder

    @property
    def parameters(self) -> int:
        """How many numbers were trained, all of which a task must store."""
        return sum(p.numel() for p in self.reader.parameters())


def tune_weights(
    kind: str,
    tasks: Sequence[Task],
    backbone: FrozenBackbone,
    config: WeightsConfig,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
) -> Tuned:
    """Return a copy of the backbone whose weights, or some of them, have learnt the tasks.

    Args:
        kind: a name in `WEIGHTS`: fine-tuning, bitfit, adapters, lora, ia3.

    Raises:
        UnknownNameError: no such kind.
        MissingExtraError: LoRA and (IA)³ without PEFT.
    """
    if kind not in WEIGHTS:
        raise UnknownNameError("baseline", kind, WEIGHTS)
    thawed = backbone.thawed()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # layers of libraries draw from the global generator
        learnt = WEIGHTS[kind](thawed, config)
    for parameter in learnt:
        parameter.requires_grad_(True)
    reads = BareText(learnt, backbone.width)
    return _fit(kind, reads, [{"params": learnt, "lr": config.lr}], tasks, thawed, config, 0, out, data_dir)


def tune_attempt(
    sources: Tensor,
    task: Task,
    backbone: FrozenBackbone,
    config: AttemptConfig,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
) -> Tuned:
    """Return a target prompt with attention over source prompts [K, L, D]."""
    reads = Attempt(sources.cpu(), backbone, config, torch.Generator().manual_seed(config.seed))
    attention = [*reads.down.parameters(), *reads.up.parameters(), *reads.norm.parameters()]
    groups: Groups = [
        {"params": [reads.target], "lr": config.lr * backbone.embedding_rms},
        {"params": attention, "lr": config.attention_lr},
    ]
    return _fit("attempt", reads, groups, [task], backbone, config, sources.shape[1], out, data_dir)


def tune_dept(
    task: Task,
    backbone: FrozenBackbone,
    config: DeptConfig,
    *,
    out: Path | None = None,
    data_dir: Path | None = None,
) -> Tuned:
    """Return a short prompt with a low-rank update of the embedded text."""
    positions = task.max_input_tokens or config.max_input_tokens
    reads = Dept(backbone, config, positions, torch.Generator().manual_seed(config.seed))
    groups: Groups = [
        {"params": [reads.prompt], "lr": config.lr * backbone.embedding_rms},
        {"params": [reads.a, reads.b], "lr": config.low_rank_lr},
    ]
    return _fit("dept", reads, groups, [task], backbone, config, config.prompt_length, out, data_dir)


def _fit(
    name: str,
    reads: nn.Module,
    groups: Groups,
    tasks: Sequence[Task],
    backbone: FrozenBackbone,
    config: TrainingConfig,
    prompt_length: int,
    out: Path | None,
    data_dir: Path | None,
) -> Tuned:
    data = training_data(tasks, backbone, config, prompt_length, data_dir)
    config = with_steps(config, data)
    baseline = Baseline(reads, make_card(name, tasks, backbone, config, data))
    identity = identity_of(name, tasks, backbone, config, data)
    identity["read"] = [hashlib.sha256(each.numpy().tobytes()).hexdigest()[:32] for each in reads.buffers()]
    with opened(out, identity, local_of(tasks, backbone, data_dir)) as run:
        random = torch.Generator().manual_seed(config.seed)
        sizes = [len(rows.examples) for rows in data.train]
        batches = tasks_alike(sizes, config.batch_size, random)
        optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)

        def losses(taking: Taking) -> list[Tensor]:
            [(learner, picks)] = taking
            prompts, batch = learner.prompt_of(collate(picks, data.train, backbone))
            return [task_loss(backbone(prompts, batch).logits, batch.labels)]

        title = f"{name} " + "+".join(task.name for task in tasks)
        train([Learner(baseline, optimizer, batches, data, config, run)], losses, backbone, title=title)
        metrics = tuple(run.metrics())
        run.discard()  # its result is in memory, and a copy of the backbone per run would fill a disk
        return Tuned(baseline, backbone, metrics)
