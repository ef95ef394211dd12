"""What the three stages share: their data, and the loop that takes a loss down.

A stage says what its loss is; the loop here knows nothing of teachers, sources or targets. Devices, processes and
trackers are Accelerate's.
"""

import itertools
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from mptune.artifacts import Card, MultitaskPrompt
from mptune.backbone import FrozenBackbone
from mptune.batching import Encoded, encode
from mptune.config import PUBLISHED_SEEDS, TrainingConfig
from mptune.data import draw_rows, draw_shots, load_data
from mptune.errors import DataError, UsageError
from mptune.evaluation import Validated, validate
from mptune.optimization import warmup_then_linear
from mptune.progress import steps
from mptune.runs import Run, interruptible, pack_state, unpack_state
from mptune.sampling import Pick
from mptune.tasks import Task

Loss = Callable[[Callable[[Tensor], Tensor], Sequence[Pick]], Tensor]


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
    failed: list[str] = []
    for task in tasks:
        try:
            data = load_data(task, ("train", "validation"), data_dir)
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
            failed.append(task.name)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise DataError(", ".join(failed), [problem for failure in failures for problem in failure.problems])
    return TrainingData(tuple(train), tuple(validation), digests, shot_rows)


def train(
    prompt: MultitaskPrompt,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    batches: Iterator[list[Pick]],
    data: TrainingData,
    backbone: FrozenBackbone,
    config: TrainingConfig,
    run: Run,
    *,
    title: str,
    report_to: Sequence[str] = (),
) -> Validated:
    """Take ``config.steps`` steps down the loss, and leave in ``prompt`` the best of its validated states.

    The start is validated too, so that training never returns less than it was given.

    Args:
        loss: the stage's loss of a batch, from the function that gives each example its prompt, and the batch's rows.
        batches: endless; a resumed run skips those that were taken.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the state was saved.
        UsageError: trackers without a folder.
    """
    if report_to and run.out is None:
        raise UsageError("trackers write into the run's folder; give out=..., or leave report_to away")
    # Tasks that are absent from a process's part of a batch have no gradients there.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(
        cpu=backbone.device.type == "cpu",
        log_with=list(report_to) or None,
        project_dir=str(run.folder) if run.out is not None else None,
        kwargs_handlers=[unused],
    )
    schedule = warmup_then_linear(optimizer, config)
    prompt.to(backbone.device)
    chosen: Validated | None = None
    step, best, state = 0, None, {name: p.detach().clone() for name, p in prompt.named_parameters()}
    saved = run.load_state()
    if saved is not None:
        tensors, progress = saved
        state = unpack_state(tensors, prompt, optimizer)
        step, best = progress["step"], tuple(progress["best"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch asks for optimizer.step() first; those steps were taken before
            for _ in range(step):
                schedule.step()
    run.forget_after(step if saved is not None else -1)
    if report_to:
        # TensorBoard takes no lists.
        accelerator.init_trackers(
            "mptune", {k: str(v) if isinstance(v, list) else v for k, v in _plain(config).items()}
        )
    prompt_of, optimizer = accelerator.prepare(prompt, optimizer)
    share = slice(accelerator.process_index, None, accelerator.num_processes)

    with (
        ExitStack() as after,
        steps(title, config.steps, step, shown=accelerator.is_main_process) as progress_bar,
        interruptible() as stopped,
    ):
        after.callback(backbone.set_dropout, False)

        def note(**values: Any) -> None:
            if accelerator.is_main_process:
                run.log({"step": step, **values})
                progress_bar.show(step, **values)
            if report_to:
                accelerator.log({k: v for k, v in values.items() if isinstance(v, float)}, step=step)

        def check() -> None:
            nonlocal best, chosen, state
            found = validate(backbone, prompt, data.validation, config)
            if best is None or found.key > best:
                best, chosen = found.key, found
                state = {name: p.detach().clone() for name, p in prompt.named_parameters()}
            note(validation=found.key[0], validation_loss=-found.key[1])

        def save() -> None:
            if accelerator.is_main_process:
                run.save_state(pack_state(prompt, optimizer, state), {"step": step, "best": best})

        if best is None:
            check()
        for picks in itertools.islice(batches, step, config.steps):
            # Seeded by step, not carried on: a resumed run meets the same dropout.
            torch.manual_seed(config.seed * 1_000_003 + step)
            backbone.set_dropout(config.dropout)
            value = loss(prompt_of, picks[share] or picks[:1])
            optimizer.zero_grad(set_to_none=True)  # None, so that absent tasks are passed over
            accelerator.backward(value)
            accelerator.clip_grad_norm_(prompt.parameters(), config.clip)
            optimizer.step()
            schedule.step()
            step += 1
            progress_bar.show(step)
            if step % config.validate_every == 0 or step == config.steps:
                note(loss=float(value.detach()))
                check()
            asked_to_stop = stopped()  # looked at once: Ctrl-C may come between two looks
            if asked_to_stop or step % config.save_every == 0:
                save()
            if asked_to_stop:
                raise KeyboardInterrupt
    prompt.load_state_dict(state)
    if report_to:
        accelerator.end_training()
    return chosen or validate(backbone, prompt, data.validation, config)  # chosen before a resumption: asked again


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
    """Return the name under which a stage's fields are set: ``teach``, ``distill`` or ``adapt``."""
    return {"teacher": "teach", "source": "distill", "target": "adapt"}[stage]


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
