"""What answers in a comparison, and what its runs begin with: backbones, teachers and multitask prompts, made once."""

import abc
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mptune.answers.evaluation import answer, encoded_rows
from mptune.answers.reader import Reader
from mptune.comparison.loaded import Contender, Loaded
from mptune.comparison.recipe import Recipe
from mptune.comparison.results import MULTITASK, TEACHERS
from mptune.config import BackboneConfig, EvaluateConfig
from mptune.files import digest
from mptune.model.backbone import Backbone
from mptune.model.encoding import Encoded
from mptune.model.loading import load_backbone
from mptune.model.memory import give_back
from mptune.prompts.card import Card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.stored import PROMPT_FILE
from mptune.stages.distillation import distill
from mptune.stages.run import read_metrics
from mptune.stages.teachers import teach
from mptune.stages.tuning import Tuned
from mptune.tasks.data import TaskRows, draw_rows
from mptune.tasks.task import Example, Split

Kind = Literal["teacher", "source training"]  # of what runs begin with
Read = dict[tuple[BackboneConfig, TaskRows, Split, tuple[int | None, ...]], Encoded]  # a split's rows as token ids


class Classifier(abc.ABC):
    """What answers a task's rows in its own way, and not through a prompt."""

    @abc.abstractmethod
    def answers(self, examples: Sequence[Example], config: EvaluateConfig) -> Sequence[str]:
        """Return the answer to each example: a label word, or text."""


@dataclass(frozen=True)
class Constant(Classifier):
    """The same answer to every row."""

    word: str

    def answers(self, examples: Sequence[Example], config: EvaluateConfig) -> Sequence[str]:
        """Return the answer as often as there are examples."""
        return [self.word] * len(examples)


@dataclass(frozen=True)
class System:
    """What answers for one task, and what it cost."""

    prompt: Tensor | Reader | Classifier  # [L, D], or what reads a batch, or what answers without the backbone's words
    length: int = 0  # L
    backbone: Backbone | None = None  # None where nothing is asked
    trained: int = 0  # numbers
    stored: int = 0  # numbers that this task alone must keep; of what a group shares, its part
    metrics: Sequence[dict[str, Any]] = ()  # as logged while it was trained
    chosen: dict[str, Any] = field(default_factory=dict)  # what was found on the way
    cards: Sequence[Card] = ()  # of everything that was trained for it, in that order

    @classmethod
    def of_prompt(
        cls,
        prompt: MultitaskPrompt,
        backbone: Backbone,
        *,
        trained: int = 0,
        out: Path | None = None,
        number: int = 0,
        before: Sequence[Card] = (),
        chosen: dict[str, Any] | None = None,
    ) -> "System":
        """Return what answers with one of a prompt's tasks.

        Args:
            trained: numbers, of all its tasks.
            out: the folder in which it was trained.
            number: of the task.
            before: cards of what it began with.
        """
        metrics = read_metrics(out) if out is not None else []
        stored, cards = math.ceil(trained / len(prompt.tasks)), [*before, prompt.card]
        one = prompt.collapse()[number]
        return cls(one, prompt.prompt_length, backbone, trained, stored, metrics, chosen or {}, cards)

    def answer(
        self, rows: TaskRows, split: Split, config: EvaluateConfig, read: Read | None = None
    ) -> tuple[tuple[Example, ...], tuple[str, ...]]:
        """Return the rows of a split, as many as are asked, and the answers to them.

        Args:
            read: rows that have been tokenised already; those that are missing are added.
        """
        if isinstance(self.prompt, Classifier):
            examples: tuple[Example, ...] = getattr(rows.data(split), split)
            examples = draw_rows(examples, config.rows or len(examples), seed=0)  # those of the other methods
            return examples, tuple(self.prompt.answers(examples, config))
        assert self.backbone is not None
        beside = 0 if self.backbone.positions is None else self.length  # soft tokens that may leave less for the text
        lengths = (config.rows, config.max_input_tokens, config.max_target_tokens, beside)
        read, key = {} if read is None else read, (self.backbone.config, rows, split, lengths)
        if key not in read:
            read[key] = encoded_rows(beside, rows, self.backbone, split, config)
        (answers,) = answer(self.backbone, [self.prompt], [read[key]], config)
        return read[key].examples, answers.texts


def systems_of(tuned: Tuned, length: int = 0, before: Sequence[Card] = ()) -> list[System]:
    """Return what answers each task of a trained baseline.

    Args:
        length: soft tokens that it reads before a text.
        before: cards of what it began with.
    """
    count, cards = len(tuned.reader.card.tasks), [*before, tuned.reader.card]
    stored = math.ceil(tuned.parameters / count)
    system = System(tuned.reader, length, tuned.backbone, tuned.parameters, stored, tuned.metrics, cards=cards)
    return [system] * count


@dataclass
class Sources:
    """What a recipe's runs begin with, each made when it is first asked for and kept in the recipe's folder."""

    loaded: Loaded
    folder: Path
    say: Callable[[str], None]
    spent: dict[Kind, list[float]] = field(default_factory=dict)  # seconds for each that was made
    read: Read = field(default_factory=dict)  # rows that were answered so far
    _backbones: dict[BackboneConfig, Backbone] = field(default_factory=dict)
    _prompts: dict[Path, MultitaskPrompt] = field(default_factory=dict)

    def prepare(self, contender: Contender, seed: int) -> None:
        """Make what a run begins with, so that its time and its title are its own."""
        settings = contender.settings
        self.backbone(settings)
        if contender.method.begins_with == "teachers":
            self.teachers(settings)
        elif contender.method.begins_with == "multitask prompt":
            self.multitask(settings, seed)

    def refuse_unfit(self, contenders: Iterable[Contender]) -> None:
        """Raise BackboneMismatch where a multitask prompt that was there before is for another model."""
        for contender in contenders:
            if contender.method.begins_with == "multitask prompt":
                for prompt in self.loaded.multitask:
                    prompt.check_backbone(self.backbone(contender.settings))

    def backbone(self, recipe: Recipe) -> Backbone:
        """Return the frozen model."""
        if recipe.backbone not in self._backbones:
            self.say("loading the backbone")
            self._backbones[recipe.backbone] = load_backbone(recipe.backbone)
        return self._backbones[recipe.backbone]

    def teachers(self, recipe: Recipe) -> list[MultitaskPrompt]:
        """Return the source tasks' teacher prompts."""
        return [self._kept("teacher", folder, task.name, self._teach, recipe, task)
                for task, folder in zip(self.loaded.sources, self._teacher_folders(recipe), strict=True)]  # fmt: skip

    def teacher_of(self, name: str, recipe: Recipe) -> MultitaskPrompt:
        """Return the teacher prompt of one source task."""
        return self.teachers(recipe)[[task.name for task in self.loaded.sources].index(name)]

    def cards(self, recipe: Recipe, source: MultitaskPrompt) -> list[Card]:
        """Return the cards of a multitask prompt and of the teachers before it."""
        taught = [] if self.loaded.multitask else self.teachers(recipe)
        return [*(teacher.card for teacher in taught), source.card]

    def multitask(self, recipe: Recipe, seed: int = 0) -> MultitaskPrompt:
        """Return the multitask prompt from which a target's seed starts."""
        if given := self.loaded.multitask:
            return given[seed % len(given)]
        recipe, teachers = _of_seed(recipe, seed), self.teachers(recipe)
        folder = self._multitask_folder(recipe)
        return self._kept("source training", folder, folder.name, self._distill, recipe, teachers)

    @property
    def first_multitask(self) -> MultitaskPrompt | None:
        """The multitask prompt with which the first seed begins; None where there is none yet."""
        if self.loaded.multitask:
            return self.loaded.multitask[0]
        folder = self.folder / MULTITASK
        return MultitaskPrompt.from_pretrained(folder) if folder.is_dir() else None

    def pending(self, contender: Contender) -> dict[Kind, list[Path]]:
        """Return the folders of the teachers and multitask prompts that a method needs and nobody has made yet."""
        settings, begins_with = contender.settings, contender.method.begins_with
        if self.loaded.multitask:
            return {"teacher": [], "source training": []}
        seeds = self.loaded.recipe.seeds_of(contender.name) if begins_with == "multitask prompt" else ()
        needed: dict[Kind, Iterable[Path]] = {
            "teacher": self._teacher_folders(settings) if begins_with in ("teachers", "multitask prompt") else (),
            "source training": dict.fromkeys(self._multitask_folder(_of_seed(settings, seed)) for seed in seeds),
        }
        return {kind: [f for f in folders if not (f / PROMPT_FILE).is_file()] for kind, folders in needed.items()}

    def _teacher_folders(self, recipe: Recipe) -> list[Path]:
        folder = self.folder / self._named(TEACHERS, recipe, "backbone", "teach")
        return [folder / task.name for task in self.loaded.sources]

    def _multitask_folder(self, recipe: Recipe) -> Path:
        return self.folder / self._named(MULTITASK, recipe, "backbone", "teach", "distill")

    def _teach(self, out: Path, recipe: Recipe, task: TaskRows) -> MultitaskPrompt:
        return teach(task, self.backbone(recipe), recipe.teach, out=out)

    def _distill(self, out: Path, recipe: Recipe, teachers: Sequence[MultitaskPrompt]) -> MultitaskPrompt:
        return distill(self.loaded.sources, teachers, self.backbone(recipe), recipe.distill, out=out)

    def _kept(
        self, kind: Kind, out: Path, name: str, make: Callable[..., MultitaskPrompt], *given: Any
    ) -> MultitaskPrompt:
        if out not in self._prompts:
            self.say(f"{kind}: {name}")
            began, read = time.monotonic(), (out / PROMPT_FILE).is_file()
            self._prompts[out] = make(out, *given)
            give_back()
            if not read:
                self.spent.setdefault(kind, []).append(time.monotonic() - began)
        return self._prompts[out]

    def _named(self, name: str, recipe: Recipe, *sections: str) -> str:
        """Return a folder's name: plain for the recipe's own settings, with their hash for others."""
        plain = self.loaded.recipe
        chosen, default = ([getattr(r, s).model_dump(mode="json") for s in sections] for r in (recipe, plain))
        return name if chosen == default else f"{name}-{digest(json.dumps(chosen), 8)}"


def _of_seed(recipe: Recipe, seed: int) -> Recipe:
    """Return the recipe with the seed of the distillation from which a target's seed starts."""
    distilled_by = recipe.distill.seed + seed % recipe.source_seeds
    return recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"seed": distilled_by})})
