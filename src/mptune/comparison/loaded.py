"""A recipe with its tasks and its methods' settings, read from its file and settled once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from mptune.comparison.methods import METHODS, Method, target_sections
from mptune.comparison.recipe import Recipe, known_to, over, recipe_model
from mptune.config import PUBLISHED_SEEDS, STARTS, AdaptConfig, ExamplesConfig
from mptune.errors import ConfigError
from mptune.files import beside, read_yaml
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.stored import shipped_prompts
from mptune.tasks.data import TaskRows
from mptune.tasks.registry import get_tasks, refuse_table
from mptune.tasks.task import Task

OF_SOURCE_TRAINING = ("teach", "distill", "source_seeds", "spot_source")  # fields of a recipe

# How a task is compared that somebody has no recipe for: what costs little first, eight labels a class, three seeds.
FIRST_LOOK: dict[str, Any] = {
    "backbone": {"dtype": "auto"},
    "multitask": ["general"],
    "methods": ["constant", "zero-shot", "tf-idf", "linear-probe", "prompt-tuning", "transfer", "mpt"],
    "shots": [8],
    "seeds": 3,
    "budget": {"steps": 100, "batch_size": 8, "validation_shots": 0},
    "prompt_tuning": {"prompt_length": 20},
    "adapt": {"most_epochs": 25, "unlabelled_rows": 0},
    "evaluate": {"rows": 500},
}

C = TypeVar("C", bound=ExamplesConfig)


@dataclass(frozen=True)
class Contender:
    """A method as a recipe has it, its settings settled."""

    name: str
    method: Method
    settings: Recipe  # the recipe, with a variant's settings
    trainings: Mapping[
        tuple[str, ...], ExamplesConfig
    ]  # names of a run's targets to its training; none without examples
    rates: tuple[float, ...]  # to try

    def tried(self, seed: int) -> int:
        """Return how many rates a run tries: with the first seed each of several, and then the best is taken."""
        return len(self.rates) if len(self.rates) > 1 and seed == PUBLISHED_SEEDS[0] else 1


@dataclass(frozen=True)
class Loaded:
    """A recipe with the tasks that it names, whose rows are read once."""

    recipe: Recipe
    sources: tuple[TaskRows, ...]
    targets: tuple[TaskRows, ...]
    multitask: tuple[MultitaskPrompt, ...] = ()  # those that are there, in place of the source tasks

    @classmethod
    def from_file(cls, path: Path, overrides: dict[str, dict[str, Any]] | None = None) -> Self:
        """Return the recipe of a YAML file, with some fields replaced.

        Raises:
            ConfigError: it is no recipe, and no task, which is compared as `FIRST_LOOK` says.
            UnknownNameError: a task that does not exist.
            ArtifactError: a multitask prompt is not there, or damaged.
        """
        refuse_table(str(path))
        values = read_yaml(path)
        if "template" in values and "targets" not in values:
            values = _of_one_task(path, values)
        for section, fields in (overrides or {}).items():
            written = values.get(section) or {}
            if isinstance(written, dict):  # what is none is said when the recipe is read
                values[section] = over(written, fields)
        _refuse_own_shots(values, path)
        _refuse_idle_training(values, path)
        recipe = recipe_model().read(values, str(path))

        def located(name: str) -> str:
            return str(beside(path.parent, name)) if name.endswith((".yaml", ".yml")) else name

        def tasks(named: Sequence[str]) -> list[Task]:
            found = get_tasks([located(name) for name in named])
            return [task.model_copy(update={"chat": task.chat or recipe.chat}) for task in found]

        sources, targets = tasks(recipe.sources), tasks(recipe.targets)
        data_dir = beside(path.parent, recipe.data) if recipe.data else None
        problems = []
        names = [task.name for task in targets]
        for field, named in (("per_task", set(recipe.per_task)), ("seen", set(recipe.seen))):
            if strangers := sorted(named - set(names)):
                problems.append(f"{field}: {', '.join(strangers)} is none of the targets ({', '.join(names)})")
        if recipe.spot_source is not None and recipe.spot_source not in [task.name for task in sources]:
            problems.append(f"spot_source wants the name of a source task; got {recipe.spot_source!r}")
        if data_dir is not None and not data_dir.is_dir():
            problems.append(f"data: there is no folder {recipe.data} beside the recipe")
        if problems:
            raise ConfigError(str(path), problems)
        begun = [MultitaskPrompt.from_pretrained(_multitask_place(path, name)) for name in recipe.multitask]
        loaded = cls.of(recipe, sources, targets, data_dir, begun)
        _refuse_bad_trainings(loaded, path)
        return loaded

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        sources: Sequence[Task],
        targets: Sequence[Task],
        data_dir: Path | None = None,
        multitask: Sequence[MultitaskPrompt] = (),
    ) -> Self:
        """Return a recipe with what was found already; a target that is a source task too is read once."""
        rows: dict[str, TaskRows] = {}
        source_rows, target_rows = (
            tuple(rows.setdefault(task.model_dump_json(), TaskRows(task, data_dir)) for task in tasks)
            for tasks in (sources, targets)
        )
        return cls(recipe, source_rows, target_rows, tuple(multitask))

    @property
    def source_names(self) -> tuple[str, ...]:
        """The source tasks' names: of several multitask prompts, those that all have seen."""
        seen = [[task.name for task in prompt.tasks] for prompt in self.multitask]
        return tuple(rows.name for rows in self.sources) or tuple(
            name for name in (seen[0] if seen else ()) if all(name in names for names in seen)
        )

    @cached_property
    def contenders(self) -> dict[str, Contender]:
        """The recipe's methods by name, settled once.

        Raises:
            ConfigError: fields of a variant or of ``per_task`` that do not exist, or values that cannot be.
        """
        return {name: self._contender(name) for name in self.recipe.methods}

    def _contender(self, name: str) -> Contender:
        recipe, method, settings = self.recipe, self.recipe.method(name), self.recipe.varied(name)
        targets = tuple(rows.name for rows in self.targets)
        trainings: dict[tuple[str, ...], ExamplesConfig] = {}
        if method.section is not None and method.takes_examples:
            config = settings.section(method.section.name)
            if method.runs_on == "all targets" and len(targets) > 1:
                # A group takes as many examples of each task as a run of its own.
                many = {field: len(targets) * getattr(config, field) for field in ("steps", "validate_every")}
                trainings = {targets: config.model_copy(update=many)}
            else:
                trainings = {(target,): for_target(config, settings, target) for target in targets}
        return Contender(name, method, settings, trainings, recipe.rates_of(name))


def _refuse_idle_training(values: dict[str, Any], path: Path) -> None:
    """Raise ConfigError for settings of a source training that ``multitask`` replaces."""
    if not values.get("multitask"):
        return
    each = values.get("variants")
    varied = each.items() if isinstance(each, dict) else ()
    written = {
        *values,
        *(f"variants.{n}.{section}" for n, fields in varied if isinstance(fields, dict) for section in fields),
    }
    idle = sorted(name for name in written if name.split(".")[-1] in OF_SOURCE_TRAINING)
    problems = [f"{name} has no effect: what multitask names is trained already" for name in idle]
    if problems:
        raise ConfigError(str(path), problems)


def _of_one_task(path: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of one task's file; only methods that can answer it."""
    named = FIRST_LOOK["methods"]
    methods = named if task.get("verbalizer") else [m for m in named if not METHODS[m].labels_only]
    name = str(task.get("name", path.stem))
    return {**FIRST_LOOK, "name": name, "out": f"runs/{name}", "targets": [path.name], "methods": methods}


def _multitask_place(path: Path, name: str) -> Path | str:
    """Return where a multitask prompt of a recipe's file lies: a folder beside it, else by its name."""
    folder = beside(path.parent, name)
    return folder if folder.is_dir() or name not in shipped_prompts() else name


def _refuse_own_shots(values: dict[str, Any], path: Path) -> None:
    """Raise ConfigError for shots and seeds of single trainings: a comparison has those of the recipe for all."""
    parts = [(section, values.get(section)) for section in ("budget", *target_sections())]
    for name in ("per_task", "variants"):
        each = values.get(name)
        for key, fields in each.items() if isinstance(each, dict) else ():
            parts.append((f"{name}.{key}", fields))
            if name == "variants" and isinstance(fields, dict):
                parts += [(f"{name}.{key}.{section}", fields.get(section)) for section in target_sections()]
    problems = [
        f"{where}.{field} has no effect: the recipe's shots and seeds are for all"
        for where, fields in parts
        for field in ("shots", "seed")
        if isinstance(fields, dict) and field in fields
    ]
    if problems:
        raise ConfigError(str(path), problems)


def _refuse_bad_trainings(loaded: Loaded, path: Path) -> None:
    """Raise ConfigError now where a training on a target could not begin, or its rates not be compared, later."""
    problems = []
    writes = [rows.name for rows in loaded.targets if not rows.task.verbalizer]
    without = [rows.name for rows in loaded.targets if not (rows.task.dataset and rows.task.dataset.unlabelled)]
    starts = (*STARTS, *loaded.source_names)
    for contender in loaded.contenders.values():
        trainings = contender.trainings.values()
        if contender.method.labels_only and writes:
            problems.append(
                f"{contender.name} chooses among labels, and {', '.join(writes)} wants text; leave one of them away"
            )
        if contender.method.wants_unlabelled and without:
            problems.append(
                f"{contender.name} learns from rows without labels, and {', '.join(without)} names none; "
                "add dataset: unlabelled: to its file, or leave one of them away"
            )
        chosen = dict.fromkeys(training.initialise for training in trainings if isinstance(training, AdaptConfig))
        problems += [
            f"adapt.initialise of {contender.name} wants one of {', '.join(starts)}; got {start!r}"
            for start in chosen
            if start not in starts
        ]
        shots = loaded.recipe.shots_of(contender.name)
        drawn = [training.model_copy(update={"shots": count}) for training in trainings for count in shots]
        if len(contender.rates) > 1 and not all(training.validates for training in drawn):
            problems.append(
                f"rates: those of {contender.name} are compared on validation rows, on which it trains without "
                "validation_shots; say how many of these there are"
            )
    if problems:
        raise ConfigError(str(path), problems)


def for_target(config: C, recipe: Recipe, task: str) -> C:
    """Return a method's configuration for one target: with what ``per_task`` says."""
    if task not in recipe.per_task:
        return config
    fields = over(config.model_dump(), known_to(type(config), recipe.per_task[task]))
    return type(config).read(fields, f"{recipe.name}: per_task.{task}")
