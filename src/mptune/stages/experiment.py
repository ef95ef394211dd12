"""One training, from the rows it reads to the folder it leaves: data, configuration, identity, run and card."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import torch

from mptune.config import PUBLISHED_SEEDS, ExamplesConfig, TrainingConfig
from mptune.errors import DataError, UsageError, refuse_type
from mptune.model.backbone import Backbone
from mptune.model.encoding import Encoded, encode, shared_chat
from mptune.model.writing import unwritable
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.run import Run
from mptune.tasks.data import TaskRows, draw_rows, draw_shots
from mptune.tasks.doubts import doubts
from mptune.tasks.task import Task
from mptune.terminal import warn_once

C = TypeVar("C", bound=ExamplesConfig)

SECTIONS = {"teacher": "teach", "source": "distill", "target": "adapt"}  # what cards call a prompt, and its stage


def section_of(kind: str) -> str:
    """Return under which name the settings of a stage or a baseline are set, by what its card says it is."""
    return SECTIONS.get(kind, kind)


def tasks_of(tasks: Task | TaskRows | Sequence[Task | TaskRows]) -> tuple[Task | TaskRows, ...]:
    """Return one task, or several, as several.

    Raises:
        UsageError: what is none.
    """
    group = one_or_several(tasks)
    for each in group:
        refuse_type("task", each, Task, TaskRows)
    return group


def one_or_several(given: Any) -> tuple[Any, ...]:
    """Return what is several, as a list, as it is, and all else as the only one; a name is no list of letters."""
    return tuple(given) if isinstance(given, Sequence | Iterator) and not isinstance(given, str) else (given,)


@dataclass(frozen=True)
class TrainingData:
    """The token ids of K tasks, and what identifies the rows they came from."""

    train: tuple[Encoded, ...]
    validation: tuple[Encoded, ...]
    digests: dict[str, str]  # task name to hash of all its rows
    shot_rows: dict[str, list[int]]  # task name to the numbers of the drawn training rows; empty without shots

    @property
    def sizes(self) -> list[int]:
        """How many training rows each task has."""
        return [len(task.examples) for task in self.train]


class Experiment(Generic[C]):
    """What belongs to one training, whatever is trained; a context in which its folder is its own.

    The configuration counts in steps, and ``random`` is the seed's generator: what draws first from it, starts, draws
    the same in every run.
    """

    def __init__(
        self,
        kind: str,
        tasks: Sequence[Task | TaskRows],
        backbone: Backbone,
        config: C,
        prompt_length: int,
        *,
        out: Path | None,
        data_dir: Path | None = None,
        also: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the rows, and open the folder, or reopen that of a killed run.

        Args:
            kind: ``teacher``, ``source``, ``target``, or a baseline's name: what the card says.
            out: folder of the result; in memory only where None.
            also: what else must be equal for a run to go on, such as the prompt it begins with.

        Raises:
            UsageError: no task, or two of one name.
            DataError: every problem of every task at once.
            ResumeError: ``out`` holds a run with another configuration.
        """
        tasks = tasks_of(tasks)
        folder = None if data_dir is None else Path(data_dir)
        rows = [TaskRows.of(task, folder) for task in tasks]
        names = [each.name for each in rows]
        if not rows or len(set(names)) < len(names):
            got = f"got {', '.join(names)}" if rows else "got none"
            raise UsageError(f"a training wants a task or more, each of a name of its own; {got}")
        self.kind, self.backbone = kind, backbone
        self.tasks = tuple(each.task for each in rows)
        self.data = training_data(rows, backbone, config, prompt_length)
        self.config = _in_steps(config, sum(self.data.sizes))
        self.random = torch.Generator().manual_seed(config.seed)
        self.run = Run(out, {**self._identity(), **(also or {})}, self._local(rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.run.close()

    def card(self, sources: Sequence[str] = ()) -> Card:
        """Return the card of a prompt about to be trained; its scores come last."""
        chosen = self.backbone.config
        return Card(
            stage=self.kind,
            tasks=tuple(task.without_paths() for task in self.tasks),
            backbone=chosen.name,
            revision=chosen.revision,
            fingerprint=self.backbone.fingerprint,
            config=self.config.model_dump(mode="json"),
            seeds={
                "seed": self.config.seed,
                "published": list(PUBLISHED_SEEDS),
                "shot_rows": self.data.shot_rows,
            },
            data=self.data.digests,
            sources=tuple(sources),
            versions=versions(),
        )

    def finished(self) -> MultitaskPrompt | None:
        """Return the prompt that an equal run has already made; None where it must still be trained."""
        return self.run.finished()

    def finish(self, prompt: MultitaskPrompt) -> MultitaskPrompt:
        """Give the folder its prompt and its final name; return the prompt."""
        self.run.finish(prompt)
        return prompt

    def _identity(self) -> dict[str, Any]:
        """Return what must be equal for a run to be the same run."""
        chosen = self.backbone.config
        return {
            "stage": self.kind,
            section_of(self.kind): self.config.model_dump(mode="json"),
            "backbone": {"name": chosen.name, "revision": chosen.revision, "dtype": chosen.dtype}
            | ({"bits": chosen.bits} if chosen.bits else {}),
            "fingerprint": self.backbone.fingerprint,
            "tasks": [task.without_paths().model_dump(mode="json", exclude_none=True) for task in self.tasks],
            "data": self.data.digests,
        }

    def _local(self, rows: Sequence[TaskRows]) -> dict[str, Any]:
        """Return what a later command on this machine needs beside the card: where data and backbone are."""
        return {
            "backbone": self.backbone.config.model_dump(mode="json"),
            "tasks": [each.task_to_save.model_dump(mode="json", exclude_none=True) for each in rows],
            "data_dir": str(data_dir.resolve()) if (data_dir := rows[0].data_dir) else None,
            "versions": versions(),
        }


def training_data(
    tasks: Sequence[TaskRows], backbone: Backbone, config: ExamplesConfig, prompt_length: int
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
    for rows in tasks:
        task = rows.task
        try:
            # Where nothing is validated, nothing is held out of the training rows for it.
            data = rows.data("train", "validation") if config.validates else rows.data("train")
            drawn = draw_shots(data.train, config.shots, config.seed)
            if config.shots is None:
                checked = draw_rows(data.validation, config.validation_rows, seed=0)
            else:
                shot_rows[task.name] = [e.row for e in drawn]
                checked = draw_shots(data.validation, config.validation_shots, config.seed)
            targets = unwritable(task, (*drawn, *checked), backbone, config.max_target_tokens)
            for doubt in (*(doubts(task, drawn, config.shots) if rows.doubted else ()), *targets):
                warn_once(doubt)
            train.append(encode(task, drawn, backbone, config, prompt_length))
            validation.append(encode(task, checked, backbone, config, prompt_length))
            digests[task.name] = data.digest
        except DataError as error:
            failures.append(error)
    if failures:
        raise DataError.of_all(failures)
    shared_chat(train)
    return TrainingData(tuple(train), tuple(validation), digests, shot_rows)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {name: version(name) for name in ("mptune", "torch", "transformers", "accelerate")}
    return {"python": platform.python_version(), **found}


def _in_steps(config: C, rows: int) -> C:
    """Return the configuration with what it says of passes over so many rows as steps."""
    if not isinstance(config, TrainingConfig):
        return config
    return config.model_copy(update={"steps": config.steps_of(rows), "epochs": None})
