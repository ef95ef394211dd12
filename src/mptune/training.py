"""What the three stages share: their data, and the loop that takes a loss down.

A stage says what its loss is; the loop here knows nothing of teachers, sources or targets. Devices, processes and
trackers are Accelerate's.
"""

import itertools
import math
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mptune.artifacts import Card, MultitaskPrompt
from mptune.backbone import FrozenBackbone
from mptune.batching import Encoded, collate, encode
from mptune.config import PUBLISHED_SEEDS, TrainingConfig
from mptune.data import draw_rows, draw_shots, load_data
from mptune.errors import DataError, UsageError
from mptune.evaluation import Validated, validate
from mptune.losses import task_loss
from mptune.optimization import warmup_then_linear
from mptune.progress import steps
from mptune.readers import Baseline
from mptune.runs import Run, interruptible, pack_state, processes, unpack_state
from mptune.sampling import Pick
from mptune.tasks import Task


@dataclass(frozen=True)
class TrainingData:
    """The token ids of K tasks, and what identifies the rows they came from."""

    train: tuple[Encoded, ...]
    validation: tuple[Encoded, ...]
    digests: dict[str, str]  # task name to hash of all its rows
    shot_rows: dict[str, list[int]]  # task name to the numbers of the drawn training rows; empty without shots


def training_data(
    tasks: Sequence[Task], backbone: FrozenBackbone, config: TrainingConfig, prompt_length: int, data_dir: Path | None
) -> TrainingData:
    """Return the training and validation rows of every task.

    Raises:
        DataError: every problem of every task at once.
    """
    train: list[Encoded] = []
    validation: list[Encoded] = []
    digests: dict[str, str] = {}
    shot_rows: dict[str, list[int]] = {}
    failures: list[DataError] = []
    for task in tasks:
        try:
            # Where nothing is validated, nothing is held out of the training rows for it.
            unseen = config.validation_shots == 0
            data = load_data(task, ("train",) if unseen else ("train", "validation"), data_dir)
            rows = draw_shots(data.train, config.shots, config.seed)
            if config.shots is None:
                checked = draw_rows(data.validation, config.validation_rows, seed=0)
            else:
                shots = config.validation_shots or config.shots
                shot_rows[task.name] = [e.row for e in rows]
                checked = draw_shots(data.validation, shots, config.seed)
            train.append(encode(task, rows, backbone, config, prompt_length))
            validation.append(encode(task, checked, backbone, config, prompt_length))
            digests[task.name] = data.digest
        except DataError as error:
            failures.append(error)
    if failures:
        raise DataError.of_all(failures)
    return TrainingData(tuple(train), tuple(validation), digests, shot_rows)


C = TypeVar("C", bound=TrainingConfig)


def with_steps(config: C, data: TrainingData) -> C:
    """Return the configuration with its epochs, if it counts in them, as steps."""
    if config.epochs is None:
        return config
    rows = sum(len(task.examples) for task in data.train)
    return config.model_copy(update={"steps": math.ceil(config.epochs * rows / config.batch_size), "epochs": None})


@dataclass
class Learner:
    """A prompt on its way, with all that is its own; several that train together share forward passes alone."""

    prompt: MultitaskPrompt | Baseline
    optimizer: torch.optim.Optimizer
    batches: Iterator[list[Pick]]  # endless; a resumed run skips those that were taken
    data: TrainingData
    config: TrainingConfig
    run: Run
    step: int = 0
    best: tuple[float, float] | None = None  # key of the best validated state
    state: Mapping[str, Tensor] = field(default_factory=dict)  # that state
    validated: Validated | None = None  # its scores, where this process took them
    schedule: LambdaLR = field(init=False)
    # The prompt, or baseline, as all processes share it: of a prompt, task ids to soft prompts, [B] -> [B, L, D].
    prompt_of: Callable[..., Any] = field(init=False)

    def begin(self, accelerator: Accelerator) -> None:
        """Take up the saved state of a killed run, or the start."""
        self.state = self._copy()
        self.schedule = warmup_then_linear(self.optimizer, self.config)
        saved = self.run.load_state()
        if saved is not None:
            tensors, progress = saved
            self.state = unpack_state(tensors, self.prompt, self.optimizer)
            self.step, self.best = progress["step"], tuple(progress["best"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch asks for optimizer.step() first; those steps were taken before
                for _ in range(self.step):
                    self.schedule.step()
        self.batches = itertools.islice(self.batches, self.step, self.config.steps)
        self.run.forget_after(self.step if saved is not None else -1)
        self.prompt_of, self.optimizer = accelerator.prepare(self.prompt, self.optimizer)

    def judge(self, found: Validated) -> None:
        """Remember the present state if it is the best so far, or if nothing tells which is."""
        if self.best is None or found.key > self.best or not found.scores:
            self.best, self.validated, self.state = found.key, found, self._copy()

    def save(self) -> None:
        """Write what a later process needs to go on."""
        progress = {"step": self.step, "best": self.best}
        self.run.save_state(pack_state(self.prompt, self.optimizer, self.state), progress)

    def _copy(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.prompt.named_parameters()}


Taking = Sequence[tuple[Learner, Sequence[Pick]]]  # who takes a step, on which rows


def train(
    learners: Sequence[Learner],
    losses: Callable[[Taking], Sequence[Tensor]],
    backbone: FrozenBackbone,
    *,
    title: str,
    report_to: Sequence[str] = (),
) -> None:
    """Take every learner's steps down its loss, and leave in its prompt the best of its validated states, with scores.

    The start is validated too, so that training never returns less than it was given. Multitask prompts are left in
    the processor's memory, wherever the backbone is; baselines stay beside it.

    Args:
        learners: one; or several, whose configurations differ in seed and shots alone.
        losses: the stage's losses, one for each learner that takes a step.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the state was saved.
        UsageError: trackers without a folder, or for several learners.
    """
    config, first = learners[0].config, learners[0].run
    if report_to and first.out is None:
        raise UsageError("trackers write into the run's folder; give out=..., or leave report_to away")
    if report_to and len(learners) > 1:
        raise UsageError(
            f"a tracker follows one run, and {len(learners)} are to train side by side; leave it away, "
            "or train one at a time"
        )
    # Tasks that are absent from a process's part of a batch have no gradients there.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        # Accelerate has one device for as long as the process lives, the first that it is told; a process may train on
        # a GPU and on the processor in turn. So what learns is put beside the backbone here, and never moved there.
        device_placement=False,
        cpu=backbone.device.type == "cpu" and processes() > 1,
        log_with=list(report_to) or None,
        project_dir=str(first.folder) if first.out is not None else None,
        kwargs_handlers=[unused],
    )
    if report_to:
        # TensorBoard takes no lists.
        accelerator.init_trackers(
            "mptune", {k: str(v) if isinstance(v, list) else v for k, v in _plain(config).items()}
        )
    for learner in learners:
        learner.prompt.to(backbone.device)
        learner.begin(accelerator)
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    start = min(learner.step for learner in learners)

    with (
        ExitStack() as after,
        steps(title, config.steps, start, shown=accelerator.is_main_process) as progress_bar,
        interruptible() as stopped,
    ):
        after.callback(backbone.set_dropout, False)

        def note(learner: Learner, **values: float) -> None:
            if accelerator.is_main_process:
                learner.run.log({"step": learner.step, **values})
                progress_bar.show(learner.step, **values)
            if report_to:
                accelerator.log(values, step=learner.step)

        def check(some: Sequence[Learner]) -> None:
            found = validate(backbone, [(each.prompt, each.data.validation) for each in some], config)
            for learner, validated in zip(some, found, strict=True):
                learner.judge(validated)
                if validated.scores:
                    note(learner, validation=validated.key[0], validation_loss=-validated.key[1])

        if new := [learner for learner in learners if learner.best is None]:
            check(new)
        for step in range(start, config.steps):
            going = [learner for learner in learners if learner.step == step]  # killed, some may have come further
            picks = [next(learner.batches) for learner in going]
            # Seeded by step, not carried on: a resumed run meets the same dropout.
            torch.manual_seed(config.seed * 1_000_003 + step)
            backbone.set_dropout(config.dropout)
            values = losses([(learner, rows[share] or rows[:1]) for learner, rows in zip(going, picks, strict=True)])
            for learner in going:
                learner.optimizer.zero_grad(set_to_none=True)  # None, so that absent tasks are passed over
            accelerator.backward(sum(values[1:], values[0]))  # no loss depends on another learner's parameters
            for learner in going:
                accelerator.clip_grad_norm_(learner.prompt.parameters(), config.clip)
                learner.optimizer.step()
                learner.schedule.step()
                learner.step += 1
            progress_bar.show(step + 1)
            if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
                for learner, value in zip(going, values, strict=True):
                    note(learner, loss=float(accelerator.reduce(value.detach(), reduction="mean")))
                check(going)
            asked_to_stop = stopped()  # looked at once: Ctrl-C may come between two looks
            if (asked_to_stop or (step + 1) % config.save_every == 0) and accelerator.is_main_process:
                for learner in going:
                    learner.save()
            if asked_to_stop:
                raise KeyboardInterrupt
    for learner in learners:
        learner.prompt.load_state_dict(learner.state)
        # The best state may have been scored by a process that was killed later: asked again.
        validated = learner.validated or validate(backbone, [(learner.prompt, learner.data.validation)], config)[0]
        learner.prompt.card = with_scores(learner.prompt.card, validated)
        if isinstance(learner.prompt, MultitaskPrompt):
            learner.prompt.cpu()  # where those that are read from a folder are: the two meet in one tensor
    if report_to:
        accelerator.end_training()


def label_losses(backbone: FrozenBackbone, taking: Taking) -> list[Tensor]:
    """Return each learner's loss of its rows' labels, from one forward pass for all learners."""
    data: list[Encoded] = []
    picks: list[Pick] = []
    prompts: list[Tensor] = []
    for learner, rows in taking:
        prompts.append(learner.prompt_of(torch.tensor([task for task, _ in rows], device=backbone.device)))
        picks += [(len(data) + task, row) for task, row in rows]
        data += learner.data.train
    batch = collate(picks, data, backbone)
    sizes = [len(rows) for _, rows in taking]
    logits = torch.split(backbone(torch.cat(prompts), batch).logits, sizes)
    return [task_loss(*own) for own in zip(logits, torch.split(batch.labels, sizes), strict=True)]


def identity_of(
    stage: str, tasks: Sequence[Task], backbone: FrozenBackbone, config: TrainingConfig, data: TrainingData
) -> dict[str, Any]:
    """Return what must be equal for a run to be the same run."""
    chosen = backbone.config
    return {
        "stage": stage,
        stage_section(stage): _plain(config),
        "backbone": {"name": chosen.name, "revision": chosen.revision, "dtype": chosen.dtype},
        "fingerprint": backbone.fingerprint(),
        "tasks": [task.without_paths().model_dump(mode="json", exclude_none=True) for task in tasks],
        "data": data.digests,
    }


def stage_section(stage: str) -> str:
    """Return the name under which a stage's fields are set: ``teach``, ``distill``, ``adapt``, or a baseline's own."""
    return {"teacher": "teach", "source": "distill", "target": "adapt"}.get(stage, stage)


def local_of(tasks: Sequence[Task], backbone: FrozenBackbone, data_dir: Path | None) -> dict[str, Any]:
    """Return what a later command on this machine needs beside the card: where data and backbone are."""
    return {
        "backbone": backbone.config.model_dump(mode="json"),
        "tasks": [task.model_dump(mode="json", exclude_none=True) for task in tasks],
        "data_dir": str(data_dir.resolve()) if data_dir else None,
        "versions": versions(),
    }


def make_card(
    stage: str,
    tasks: Sequence[Task],
    backbone: FrozenBackbone,
    config: TrainingConfig,
    data: TrainingData,
    *,
    sources: Sequence[str] = (),
) -> Card:
    """Return the card of a prompt about to be trained; its scores come last."""
    return Card(
        stage=stage,
        tasks=tuple(task.without_paths() for task in tasks),
        backbone=backbone.config.name,
        revision=backbone.config.revision,
        fingerprint=backbone.fingerprint(),
        config=_plain(config),
        seeds={"seed": config.seed, "published": list(PUBLISHED_SEEDS), "shot_rows": data.shot_rows},
        data=data.digests,
        sources=tuple(sources),
        versions=versions(),
    )


def with_scores(card: Card, validated: Validated) -> Card:
    """Return the card with the validation scores of the finished prompt."""
    return card.model_copy(update={"scores": tuple(s.as_dict() for s in validated.scores)})


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {name: version(name) for name in ("mptune", "torch", "transformers", "accelerate")}
    return {"python": platform.python_version(), **found}


def _plain(config: TrainingConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")
