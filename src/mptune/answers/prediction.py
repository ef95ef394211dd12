"""Texts of mixed tasks in, labels out: a frozen backbone, and the collapsed prompts of any number of tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

from torch import Tensor

from mptune.answers.evaluation import answer, refuse_not_finite
from mptune.answers.frames import is_table_in_memory, with_answers
from mptune.config import EvaluateConfig, ExamplesConfig
from mptune.errors import DataError, UnknownNameError, UsageError, refuse_type
from mptune.files import digest
from mptune.model.backbone import Backbone
from mptune.model.encoding import encode
from mptune.model.loading import load_backbone
from mptune.prompts.card import Calibration
from mptune.prompts.prompt import MultitaskPrompt, backbone_of, load_prompts, refuse_namesakes
from mptune.tasks.cells import cell
from mptune.tasks.memory import rows_in_memory
from mptune.tasks.task import Example, Task, there

TASK_FIELD = "task"  # the field of a row that names its task, where a predictor knows several


@dataclass(frozen=True)
class Prediction:
    """The answer to one row."""

    task: str
    answer: str  # the label word, or the free text
    label: str | None = None  # the verbalizer's label value
    probabilities: Mapping[str, float] | None = None  # by label word, at the temperature of a calibrated prompt
    abstained: bool | None = None  # whether a threshold says that nobody should rely on it; None without a threshold

    @property
    def confidence(self) -> float | None:
        """The answer's probability among the label words; None for free text."""
        return None if self.probabilities is None else self.probabilities[self.answer]

    def as_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON holds it."""
        values = {"task": self.task, "answer": self.answer, "label": self.label, "probabilities": self.probabilities,
                  "abstained": self.abstained}  # fmt: skip
        return {key: value for key, value in values.items() if value is not None}


class Predictor:
    """Answers rows of one or many tasks with one frozen backbone."""

    def __init__(
        self,
        backbone: Backbone,
        prompts: MultitaskPrompt | Sequence[MultitaskPrompt],
        config: EvaluateConfig | None = None,
    ) -> None:
        """Collapse the prompts once.

        Raises:
            BackboneMismatch: a prompt was made for another model.
            UsageError: several prompts for one task, or none at all.
        """
        refuse_type("backbone", backbone, Backbone)
        refuse_type("config", config, EvaluateConfig, type(None))
        prompts = list(prompts) if isinstance(prompts, list | tuple) else [prompts]  # type: ignore[list-item]
        for each in prompts:
            refuse_type("prompts", each, MultitaskPrompt)
        if not prompts:
            raise UsageError("a predictor wants one prompt or more; got none")
        refuse_namesakes(prompts)
        self.backbone = backbone
        self.config = config or EvaluateConfig()
        self._tasks: dict[str, tuple[Task, Tensor]] = {}
        self._calibrations: dict[str, Calibration] = {}
        for prompt in prompts:
            prompt.check_backbone(backbone)
            for task, collapsed in zip(prompt.tasks, prompt.collapse(), strict=True):
                self._tasks[task.name] = (task, collapsed)
            self._calibrations |= prompt.card.calibration or {}

    @classmethod
    def from_pretrained(
        cls, name: str | Path, backbone: Backbone | None = None, config: EvaluateConfig | None = None
    ) -> Self:
        """Return the predictor of a prompt folder (or a folder of them), or of a prompt on the hub.

        Args:
            backbone: the model that the prompts were made for; loaded by their card where None.

        Raises:
            ArtifactError: no prompt there.
            BackboneMismatch: the model is another one.
        """
        prompts = load_prompts(name)
        return cls(backbone or load_backbone(backbone_of(prompts[0], name)), prompts, config)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks it can answer."""
        return tuple(task for task, _ in self._tasks.values())

    @property
    def abstains(self) -> bool:
        """Whether a task of it has a threshold, below which answers are abstained."""
        return any(each.threshold is not None for each in self._calibrations.values())

    @overload
    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Prediction]: ...

    @overload
    def predict(self, rows: Any) -> Any: ...

    def predict(self, rows: Any) -> Any:
        """Return one answer per row, in their order.

        A pandas DataFrame or a ``datasets.Dataset`` comes back with the columns ``answer`` and ``confidence``, and
        ``abstained`` where a prompt has a threshold; a list of ``{field: value}`` gives a list of `Prediction`.

        Args:
            rows: the fields of each task's template; ``task`` names it where the predictor knows several.

        Raises:
            UsageError: what is no table.
            DataError: every row that names no known task, or lacks a field.
        """
        if isinstance(rows, str | bytes | Mapping):
            got = type(rows).__name__
            raise UsageError(f"predict wants a list of rows, as [{row_like(self.tasks[0])}], or a table; got one {got}")
        if not is_table_in_memory(rows):
            return self._predictions(rows)
        found = self._predictions(rows_in_memory(rows, "predict"))
        abstained = [each.abstained for each in found] if self.abstains else None
        return with_answers(rows, [each.answer for each in found], [each.confidence for each in found], abstained)

    def _predictions(self, rows: Sequence[Mapping[str, Any]]) -> list[Prediction]:
        """Return the answers to rows, in their order."""
        problems: list[str] = []
        inputs: dict[str, list[Example]] = {}
        for number, row in enumerate(rows, start=1):
            try:
                example = self.rendered(row, number)
                inputs.setdefault(example.task, []).append(example)
            except ValueError as error:
                problems.append(f"row {number}: {error}")
        if problems:
            raise DataError(", ".join(self._tasks), problems)
        return self._answers(inputs, len(rows))

    def rendered(self, row: Mapping[str, Any], number: int = 0) -> Example:
        """Return a row as its task reads it.

        Raises:
            ValueError: why it cannot be answered.
        """
        try:
            task = self._task_of(row) if isinstance(row, Mapping) else self.tasks[0]
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
        return rendered_row(task, row, number)

    @cached_property
    def identity(self) -> str:
        """What is equal where answers are: prompts, calibrations, tasks, backbone and settings, as a hash."""
        parts = [self.backbone.fingerprint, str(self.backbone.dtype), self.config.model_dump_json()]
        parts += [
            task.model_dump_json() + digest(prompt.cpu().numpy().tobytes()) for task, prompt in self._tasks.values()
        ]
        parts += [f"{name} {found.model_dump_json()}" for name, found in self._calibrations.items()]
        return digest("".join(parts))

    def _task_of(self, row: Mapping[str, Any]) -> Task:
        if len(self._tasks) == 1:
            return self.tasks[0]
        name = cell(row.get(TASK_FIELD), TASK_FIELD)
        if name is None:
            raise ValueError(f"no field {TASK_FIELD!r}, for one of {', '.join(self._tasks)}; it has {there(row)}")
        if name not in self._tasks:
            raise UnknownNameError("task of this predictor", name, self._tasks)
        return self._tasks[name][0]

    def _answers(self, inputs: Mapping[str, Sequence[Example]], count: int) -> list[Prediction]:
        """Return the answers to the rows of each task, in the order of their numbers."""
        lengths = ExamplesConfig(
            max_input_tokens=self.config.max_input_tokens, max_target_tokens=self.config.max_target_tokens
        )
        prompts = [self._tasks[name][1] for name in inputs]
        data = []
        for (name, examples), prompt in zip(inputs.items(), prompts, strict=True):
            data.append(encode(self._tasks[name][0], examples, self.backbone, lengths, len(prompt)))
        predictions: dict[int, Prediction] = {}
        for each, answers in zip(data, answer(self.backbone, prompts, data, self.config, labelled=False), strict=True):
            task, calibration = each.task, self._calibrations.get(each.task.name)
            value_of = {word: value for value, word in task.verbalizer.items()}
            probabilities = answers.calibrated(calibration)
            if probabilities is not None:
                refuse_not_finite(probabilities, self.backbone)
            for i, example in enumerate(each.examples):
                text, odds = answers.texts[i], None
                if probabilities is not None:
                    odds = dict(zip(task.label_words, probabilities[i].tolist(), strict=True))
                abstained = calibration.abstains(odds[text] if odds else None) if calibration else None
                predictions[example.row] = Prediction(task.name, text, value_of.get(text), odds, abstained)
        return [predictions[number] for number in range(1, count + 1)]


def rendered_row(task: Task, row: Mapping[str, Any], number: int = 0) -> Example:
    """Return a row that is to be answered as its task reads it.

    Raises:
        ValueError: why it cannot be answered.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"wants {{field: value}}, as {row_like(task)}; got {row!r:.40}")
    try:
        if nothing := task.unreadable(row):
            raise ValueError(nothing)
        example = task.unlabelled(row, number)
        example.input.encode()
    except UnicodeEncodeError:
        raise ValueError("half a character, as \\ud83d alone") from None
    except (LookupError, TypeError) as error:
        raise ValueError(f"no field {error}; it has {there(row)}") from None
    return example


def row_like(task: Task) -> str:
    """Return what a row of a task looks like, for a message."""
    return "{" + ", ".join(f"{field!r}: ..." for field in task.text_fields) + "}"
