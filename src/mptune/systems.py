"""The systems of a comparison: each is one function from a recipe and a target to something that answers.

A system's runs share what comes before them: backbones, teachers and multitask prompts, which `Sources` trains once.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mptune.artifacts import TENSORS, Card, MultitaskPrompt, stack
from mptune.backbone import FrozenBackbone, load_backbone
from mptune.baselines.tuning import Tuned, tune_attempt, tune_dept, tune_weights
from mptune.config import AdaptConfig, BackboneConfig, TeachConfig, TrainingConfig
from mptune.prompts import compose, mean_of_vectors
from mptune.readers import Reader
from mptune.recipes import OF_WEIGHTS, UNADAPTED, Loaded, Recipe, for_target, section_of
from mptune.results import MULTITASK, TEACHERS
from mptune.runs import read_metrics
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.tasks import Task

FROM_MULTITASK = ("mpt", "mpt-group", *UNADAPTED)  # methods that begin with a multitask prompt
Kind = Literal["teacher", "source training"]  # of what runs begin with
FROM_TEACHERS = ("spot", "spot-closest", "attempt", "teacher", *FROM_MULTITASK)


@dataclass(frozen=True)
class System:
    """What answers for one task, and what it cost."""

    prompt: Tensor | Reader  # [L, D], or what reads a batch
    length: int  # L
    backbone: FrozenBackbone
    trained: int = 0  # numbers
    stored: int = 0  # numbers that this task alone must keep; of what a group shares, its part
    metrics: Sequence[dict[str, Any]] = ()  # as logged while it was trained
    chosen: dict[str, Any] = field(default_factory=dict)  # what was found on the way
    cards: Sequence[Card] = ()  # of everything that was trained for it, in that order


@dataclass
class Sources:
    """What a recipe's runs begin with, each made when it is first asked for and kept in the recipe's folder."""

    loaded: Loaded
    folder: Path
    say: Callable[[str], None]
    seconds: float = 0.0  # that making them, or reading them again, took so far
    spent: dict[Kind, list[float]] = field(default_factory=dict)  # seconds for each that was made, without its teachers
    _backbones: dict[BackboneConfig, FrozenBackbone] = field(default_factory=dict)
    _prompts: dict[Path, MultitaskPrompt] = field(default_factory=dict)

    def backbone(self, recipe: Recipe) -> FrozenBackbone:
        """Return the frozen model."""
        if recipe.backbone not in self._backbones:
            self._backbones[recipe.backbone] = load_backbone(recipe.backbone)
        return self._backbones[recipe.backbone]

    def teachers(self, recipe: Recipe) -> list[MultitaskPrompt]:
        """Return the source tasks' teacher prompts."""
        return [self._kept("teacher", folder, task.name, self._teach, recipe, task)
                for task, folder in zip(self.loaded.sources, self._teacher_folders(recipe), strict=True)]  # fmt: skip

    def multitask(self, recipe: Recipe, seed: int = 0) -> MultitaskPrompt:
        """Return the multitask prompt from which a target's seed starts."""
        recipe = _of_seed(recipe, seed)
        folder = self._multitask_folder(recipe)
        return self._kept("source training", folder, folder.name, self._distill, recipe)

    def pending(self, method: str) -> dict[Kind, list[Path]]:
        """Return the folders of the teachers and multitask prompts that a method needs and nobody has made yet."""
        base, recipe = self.loaded.recipe.base(method), self.loaded.recipe.varied(method)
        seeds = self.loaded.recipe.seeds_of(method) if base in FROM_MULTITASK else ()
        needed: dict[Kind, Iterable[Path]] = {
            "teacher": self._teacher_folders(recipe) if base in FROM_TEACHERS else (),
            "source training": dict.fromkeys(self._multitask_folder(_of_seed(recipe, seed)) for seed in seeds),
        }
        return {kind: [f for f in folders if not (f / TENSORS).is_file()] for kind, folders in needed.items()}

    def _teacher_folders(self, recipe: Recipe) -> list[Path]:
        folder = self.folder / self._named(TEACHERS, recipe, "backbone", "teach")
        return [folder / task.name for task in self.loaded.sources]

    def _multitask_folder(self, recipe: Recipe) -> Path:
        return self.folder / self._named(MULTITASK, recipe, "backbone", "teach", "distill")

    def _teach(self, out: Path, recipe: Recipe, task: Task) -> MultitaskPrompt:
        return teach(task, self.backbone(recipe), recipe.teach, out=out, data_dir=self.loaded.data_dir)

    def _distill(self, out: Path, recipe: Recipe) -> MultitaskPrompt:
        teachers = self.teachers(recipe)
        return distill(
            self.loaded.sources, teachers, self.backbone(recipe), recipe.distill, out=out, data_dir=self.loaded.data_dir
        )

    def _kept(
        self, kind: Kind, out: Path, name: str, make: Callable[..., MultitaskPrompt], *given: Any
    ) -> MultitaskPrompt:
        if out not in self._prompts:
            self.say(f"{kind}: {name}")
            began, before, read = time.monotonic(), self.seconds, (out / TENSORS).is_file()
            self._prompts[out] = make(out, *given)
            took = time.monotonic() - began  # a multitask prompt's teachers are in it
            if not read:
                self.spent.setdefault(kind, []).append(took - (self.seconds - before))
            self.seconds = before + took
        return self._prompts[out]

    def _named(self, name: str, recipe: Recipe, *sections: str) -> str:
        """Return a folder's name: plain for the recipe's own settings, with their hash for others."""
        chosen, own = ([getattr(r, s).model_dump(mode="json") for s in sections] for r in (recipe, self.loaded.recipe))
        return name if chosen == own else f"{name}-{hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:8]}"


def _of_seed(recipe: Recipe, seed: int) -> Recipe:
    """Return the recipe with the seed of the distillation from which a target's seed starts."""
    own = recipe.distill.seed + seed % recipe.source_seeds
    return recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"seed": own})})


@dataclass(frozen=True)
class Asked:
    """One run: a method's settings, targets (one, or a group), examples and seed."""

    recipe: Recipe  # with the variant's settings
    tasks: tuple[Task, ...]
    shots: int | None  # 0 takes none, None all
    seed: int
    lr: float | None  # a rate that was tried, in place of the section's
    out: Path | None  # where the run's files stand

    def config(self, section: str, rate: str = "lr") -> Any:
        """Return a section's configuration for this run.

        Args:
            rate: the field that ``lr`` replaces.
        """
        few: dict[str, Any] = {"shots": self.shots, "seed": self.seed}
        if self.lr is not None:
            few[rate] = self.lr
        config: TrainingConfig = getattr(self.recipe, section)
        if len(self.tasks) == 1:
            return for_target(config, self.recipe, self.tasks[0], **few)
        # A group takes as many examples of each task as a run of its own.
        many = {name: len(self.tasks) * getattr(config, name) for name in ("steps", "validate_every")}
        return config.model_copy(update={**many, **few})


def train_system(method: str, asked: Asked, sources: Sources) -> list[System]:
    """Return what a built-in method made of the targets, one answer to each."""
    if method in OF_WEIGHTS or method == "multitask-fine-tuning":
        section = str(section_of(method))
        kind, config = section.replace("_", "-"), asked.config(section)
        backbone = sources.backbone(asked.recipe)
        tuned = tune_weights(kind, asked.tasks, backbone, config, out=asked.out, data_dir=sources.loaded.data_dir)
        return _of_tuned(tuned, 0, len(asked.tasks))
    return SYSTEMS[method](asked, sources)


def _zero_shot(asked: Asked, sources: Sources) -> list[System]:
    backbone = sources.backbone(asked.recipe)
    return [System(torch.zeros(0, backbone.width), 0, backbone)]


def _teacher(asked: Asked, sources: Sources) -> list[System]:
    """The teacher of a target that is a source task too."""
    names = [task.name for task in sources.loaded.sources]
    made = sources.teachers(asked.recipe)[names.index(asked.tasks[0].name)]
    return [_of_prompt(made, sources.backbone(asked.recipe), None, made.shared.numel())]


def _transfer(asked: Asked, sources: Sources) -> list[System]:
    """The multitask prompt with the mean of the source tasks' vectors, as it is."""
    source = sources.multitask(asked.recipe, asked.seed)
    mean = compose(source.shared, mean_of_vectors(source.task_vectors))[0].detach()
    return [System(mean, len(mean), sources.backbone(asked.recipe), cards=_cards(asked.recipe, sources, source))]


def _prompt_tuning(asked: Asked, sources: Sources) -> list[System]:
    config: TeachConfig = asked.config("prompt_tuning")
    backbone = sources.backbone(asked.recipe)
    made = teach(asked.tasks[0], backbone, config, out=asked.out, data_dir=sources.loaded.data_dir)
    return [_of_prompt(made, backbone, asked.out, made.shared.numel())]


def _spot(asked: Asked, sources: Sources) -> list[System]:
    """Prompt tuning from one teacher, the same for every target (Vu et al. 2022, generic)."""
    teachers = sources.teachers(asked.recipe)
    names = [task.name for task in sources.loaded.sources]
    teacher = teachers[names.index(asked.recipe.spot_source or names[0])]
    return _tuned_from(teacher, asked, sources, before=[teacher.card])


def _spot_closest(asked: Asked, sources: Sources) -> list[System]:
    """Prompt tuning from the teacher most like the target's own tuned prompt (Vu et al. 2022, targeted).

    Likeness is the cosine of the prompts' mean soft tokens.
    """
    own = asked.out.with_name(f"{asked.out.name}-own") if asked.out is not None else None
    (tuned,) = _prompt_tuning(Asked(asked.recipe, asked.tasks, asked.shots, asked.seed, asked.lr, own), sources)
    teachers = sources.teachers(asked.recipe)
    assert isinstance(tuned.prompt, Tensor)
    likeness = torch.cosine_similarity(stack(teachers).cpu().mean(1), tuned.prompt.cpu().mean(0)[None], dim=-1)  # [K]
    closest = teachers[int(likeness.argmax())]
    before = [*(teacher.card for teacher in teachers), *tuned.cards]
    return _tuned_from(closest, asked, sources, before=before, chosen={"source": closest.tasks[0].name})


def _tuned_from(
    teacher: MultitaskPrompt,
    asked: Asked,
    sources: Sources,
    *,
    before: Sequence[Card],
    chosen: dict[str, Any] | None = None,
) -> list[System]:
    """Return prompt tuning that starts at a teacher; with the budget and rate of prompt tuning from scratch."""
    config: TeachConfig = asked.config("prompt_tuning")
    common = {name: getattr(config, name) for name in TrainingConfig.model_fields}
    update = AdaptConfig(**common, shared_lr=config.lr, initialise="shared", train="shared")
    backbone = sources.backbone(asked.recipe)
    made = adapt(teacher, asked.tasks[0], backbone, update, out=asked.out, data_dir=sources.loaded.data_dir)
    return [_of_prompt(made, backbone, asked.out, made.shared.numel(), chosen=chosen, before=before)]


def _attempt(asked: Asked, sources: Sources) -> list[System]:
    teachers = sources.teachers(asked.recipe)
    prompts = stack(teachers)
    tuned = tune_attempt(
        prompts, asked.tasks[0], sources.backbone(asked.recipe), asked.config("attempt"),
        out=asked.out, data_dir=sources.loaded.data_dir,
    )  # fmt: skip
    return _of_tuned(tuned, prompts.shape[1], 1, [teacher.card for teacher in teachers])


def _dept(asked: Asked, sources: Sources) -> list[System]:
    config = asked.config("dept")
    tuned = tune_dept(
        asked.tasks[0], sources.backbone(asked.recipe), config, out=asked.out, data_dir=sources.loaded.data_dir
    )
    return _of_tuned(tuned, config.prompt_length, 1)


def _mpt(asked: Asked, sources: Sources) -> list[System]:
    """One adaptation, of a task or of a group that shares a prompt."""
    config: AdaptConfig = asked.config("adapt", rate="shared_lr")
    source, backbone = sources.multitask(asked.recipe, asked.seed), sources.backbone(asked.recipe)
    made = adapt(source, asked.tasks, backbone, config, out=asked.out, data_dir=sources.loaded.data_dir)
    trained, before = trained_numbers(made, config), _cards(asked.recipe, sources, source)
    return [_of_prompt(made, backbone, asked.out, trained, number=k, before=before) for k in range(len(asked.tasks))]


SYSTEMS: dict[str, Callable[[Asked, Sources], list[System]]] = {
    "zero-shot": _zero_shot,
    "teacher": _teacher,
    "transfer": _transfer,
    "prompt-tuning": _prompt_tuning,
    "spot": _spot,
    "spot-closest": _spot_closest,
    "attempt": _attempt,
    "dept": _dept,
    "mpt": _mpt,
    "mpt-group": _mpt,
}


def from_source(name: str, recipe: Recipe, sources: Sources, seed: int) -> System:
    """Return the multitask prompt as one of its source tasks uses it, for any target."""
    made = sources.multitask(recipe, seed)
    number, teachers = made.task_number(name), [teacher.card for teacher in sources.teachers(recipe)]
    return _of_prompt(made, sources.backbone(recipe), None, 0, number=number, before=teachers)


def trained_numbers(prompt: MultitaskPrompt, config: AdaptConfig) -> int:
    """Return how many numbers an adaptation trains: on T5-base 77,668 for one task, 76,800 + 868 a task for a group."""
    vectors = sum(p.numel() for p in (*prompt.u, *prompt.v))
    shared = prompt.shared.numel()
    counts: dict[str, int] = {"all": shared + vectors, "shared": shared, "task-vectors": vectors}
    return counts[config.train]


def _of_prompt(
    made: MultitaskPrompt,
    backbone: FrozenBackbone,
    out: Path | None,
    trained: int,
    *,
    number: int = 0,
    chosen: dict[str, Any] | None = None,
    before: Sequence[Card] = (),
) -> System:
    metrics = read_metrics(out) if out is not None else []
    stored, cards = math.ceil(trained / len(made.tasks)), [*before, made.card]
    return System(made.collapse()[number], made.prompt_length, backbone, trained, stored, metrics, chosen or {}, cards)


def _of_tuned(tuned: Tuned, length: int, count: int, before: Sequence[Card] = ()) -> list[System]:
    stored, cards = math.ceil(tuned.parameters / count), [*before, tuned.reader.card]
    return [System(tuned.reader, length, tuned.backbone, tuned.parameters, stored, tuned.metrics, cards=cards)] * count


def _cards(recipe: Recipe, sources: Sources, source: MultitaskPrompt) -> list[Card]:
    """Return the cards of a multitask prompt and of the teachers before it."""
    return [*(teacher.card for teacher in sources.teachers(recipe)), source.card]
