"""What a recipe will take on this machine, from a short measurement: runs, steps, tokens, hours, GiB.

Every stage and method takes one step, then three: their difference is two steps, without a start. Other tasks are
reckoned by their tokens; of public data sets whose rows are not at hand, runs and steps are counted.
"""

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mptune.comparison.guard import refuse_bad_rows, refuse_change
from mptune.comparison.loaded import Contender, Loaded
from mptune.comparison.recipe import Recipe
from mptune.comparison.results import read_results
from mptune.comparison.systems import Sources, System
from mptune.comparison.trials import Trial, chosen_trials, rows_needed, unfinished
from mptune.config import AdaptConfig, ExamplesConfig, TrainingConfig
from mptune.errors import WRONG_USE, DataError
from mptune.files import beside
from mptune.model.backbone import Backbone
from mptune.model.encoding import chat_for, encode_inputs
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.tasks.data import TaskRows, draw_rows
from mptune.tasks.protocols import PUBLISHED_ROWS
from mptune.tasks.task import SPLITS, Split

STEPS, ROWS = (1, 3), (8, 24)  # of two measurements; test rows of two
SHOTS = 8  # of what takes no steps
STATES = 2 * 4  # numbers an unfinished run keeps of each that learns: it, two moments, the best so far; old and new
COUNTED = 200  # rows of a task whose tokens are counted


@dataclass(frozen=True)
class Cost:
    """What the runs of one kind will take."""

    what: str
    runs: int
    steps: int
    tokens: float  # read while training, prompts included
    hours: float


@dataclass(frozen=True)
class Plan:
    """What a recipe will take."""

    costs: tuple[Cost, ...]
    memory: float  # GiB, the most that was in use while measuring
    disk: float  # GiB, at most
    missing: str = ""  # the rows for want of which nothing was measured

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return a head and rows for a terminal."""
        total = Cost("all", *(sum(getattr(c, f) for c in self.costs) for f in ("runs", "steps", "tokens", "hours")))
        head = ["what", "runs", "steps", "million tokens", "hours"][: 3 if self.missing else 5]
        rows = [[c.what, f"{c.runs:,}", f"{c.steps:,}", f"{c.tokens / 1e6:,.1f}", _hours(c.hours)][: len(head)]
                for c in (*self.costs, total)]  # fmt: skip
        return head, rows

    def summary(self) -> str:
        """Return a sentence for people."""
        if self.missing:
            return f"Counted by published numbers of rows; how long it takes is not known here, for {self.missing}"
        hours = sum(cost.hours for cost in self.costs)
        return (
            f"About {_hours(hours)} hours on this machine, {self.memory:.1f} GiB of memory and at most "
            f"{self.disk:.1f} GiB of disk. Measured on few steps: take it for a third more or less."
        )


@dataclass(frozen=True)
class Texts:
    """How long a task's texts are, and how many it has."""

    tokens: float  # of a row, on average
    train: int
    validation: int
    test: int
    classes: int

    def drawn(self, shots: int | None) -> int:
        """Return how many training rows so many shots are."""
        return self.train if shots is None else min(self.train, shots * self.classes)


@dataclass(frozen=True)
class Pace:
    """How fast a method is on the task it was measured on."""

    step: float  # seconds; of what takes no steps, of a whole run
    size: int  # rows of such a step
    row: float  # seconds, of scoring one
    tokens: float  # of a row of that task, prompt included
    length: int = 0  # soft tokens
    trained: int = 0  # numbers that learn


def planned(
    loaded: Loaded, out: Path | None = None, *, only: Sequence[str] = (), say: Callable[[str], None] = lambda _: None
) -> Plan:
    """Return what the unfinished runs of a recipe will take.

    Args:
        out: in place of the recipe's folder.
        only: methods and targets to restrict it to.
        say: told what is measured.

    Raises:
        ResumeError, ResultsError: `run_recipe` would not add to the folder.
        DataError: every problem of every task at once; not where public data sets are missing and nothing else.
    """
    recipe, folder = loaded.recipe, out or beside(Path(), loaded.recipe.out)
    lines = read_results(folder)
    refuse_change(folder, loaded, lines)
    trials: dict[str, list[Trial]] = {}
    to_come = unfinished(chosen_trials(loaded, only), lines)
    sources, targets = rows_needed(loaded, to_come)
    for trial in to_come:
        trials.setdefault(trial.name, []).append(trial)
    try:
        refuse_bad_rows(sources, targets)
    except DataError as error:
        if error.exit_code != WRONG_USE or not {t.name for t in (*sources, *targets)} <= set(PUBLISHED_ROWS):
            raise
        more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
        return _counted(loaded, folder, trials, f"{error.problems[0]}{more}")
    with tempfile.TemporaryDirectory() as scratch:
        meter = _Meter(loaded, Path(scratch), say)
        texts = {task.name: meter.texts(task) for task in (*sources, *targets)}
        contenders = [alike[0].contender for alike in trials.values()]
        before = list(_source_costs(Sources(loaded, folder, lambda _: None), contenders, meter, texts))
        cache = recipe.distill.teacher_cache if any("source training" in cost.what for cost in before) else 0.0
        paces = {name: meter.method(alike[0]) for name, alike in trials.items()}
        costs = [_target_cost(recipe, name, alike, paces[name], texts) for name, alike in trials.items()]
        length = max([recipe.teach.prompt_length, *(pace.length for pace in paces.values())])
        prompts_by_run = [1] * len(before) + [contender.method.trainings for contender in contenders]
        counted = zip([*before, *costs], prompts_by_run, strict=True)
        prompts = sum(cost.runs * count for cost, count in counted if cost.steps)
        backbone = meter.backbone(recipe)
        state = STATES * max([0, *(pace.trained for pace in paces.values())])
    disk = cache + 4 * (prompts * length * backbone.width + state) / 2**30
    return Plan((*before, *costs), _memory(backbone), disk)


def _counted(loaded: Loaded, folder: Path, trials: dict[str, list[Trial]], missing: str) -> Plan:
    """Return runs and steps by the published numbers of training rows; of time and memory nothing is known."""
    texts = {
        task.name: Texts(math.nan, PUBLISHED_ROWS[task.name], 1_000, 1_000, max(1, len(task.task.verbalizer)))
        for task in (*loaded.sources, *loaded.targets)
    }
    contenders = [alike[0].contender for alike in trials.values()]
    before = _source_costs(Sources(loaded, folder, lambda _: None), contenders, _Unmeasured(), texts)
    costs = [_target_cost(loaded.recipe, name, alike, UNKNOWN, texts) for name, alike in trials.items()]
    return Plan((*before, *costs), math.nan, math.nan, missing)


def _memory(backbone: Backbone) -> float:
    """Return the most memory that was in use so far, in GiB."""
    if backbone.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated() / 2**30)
    import resource  # of Unix alone; kilobytes on Linux, bytes on macOS

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def _source_costs(
    sources: Sources, contenders: Sequence[Contender], meter: "_Meter | _Unmeasured", texts: dict[str, Texts]
) -> Iterator[Cost]:
    """Yield what teachers and source trainings take that are not made yet; those that methods share count once."""
    names = [task.name for task in sources.loaded.sources]
    teachers: dict[str, tuple[Recipe, list[Path]]] = {}
    students: dict[str, tuple[Recipe, dict[Path, None]]] = {}
    for contender in contenders:
        settings, pending = contender.settings, sources.pending(contender)
        if pending["teacher"]:
            teachers.setdefault(f"{settings.backbone}{settings.teach}", (settings, pending["teacher"]))
        if pending["source training"]:
            key = f"{settings.backbone}{settings.teach}{settings.distill}"
            _, folders = students.setdefault(key, (settings, {}))
            folders.update(dict.fromkeys(pending["source training"]))
    for number, (settings, untaught) in enumerate(teachers.values(), start=1):
        pace = meter.teaching(settings)
        tasks = [texts[folder.name] for folder in untaught]
        yield _sum(_numbered("teachers", number), [training_cost(settings.teach, [t], pace) for t in tasks])
    for number, (settings, undistilled) in enumerate(students.values(), start=1):
        pace = meter.distilling(settings)
        one = training_cost(settings.distill, [texts[name] for name in names], pace)
        yield _sum(_numbered("source training", number), [one] * len(undistilled))


def _numbered(what: str, number: int) -> str:
    return what if number == 1 else f"{what}, settings {number}"


def _target_cost(recipe: Recipe, name: str, trials: Sequence[Trial], pace: Pace, texts: dict[str, Texts]) -> Cost:
    """Return what the runs of a method take."""
    parts = []
    for trial in trials:
        tasks = [texts[task] for task in trial.tasks]
        tests = [min(t.test, recipe.evaluate.rows or t.test) for t in tasks]
        asked = Cost("", 1, 0, 0, _answering(tests, tasks, pace))
        trained = _trained_cost(trial, tasks, pace) if trial.contender.trainings else Cost("", 1, 0, 0, 0)
        tried = trial.contender.tried(trial.seed)
        if tried > 1:  # the best of them is this run
            compared = _answering([min(recipe.tuning_rows, t.validation) for t in tasks], tasks, pace)
            trained = replace(_sum("", [trained] * tried), hours=tried * (trained.hours + compared))
        parts.append(replace(_sum("", [trained, asked]), runs=trained.runs))
    return _sum(name, parts)


def _trained_cost(trial: Trial, tasks: Sequence[Texts], pace: Pace) -> Cost:
    """Return what a run's training takes; of several, all of which a step of ``pace`` has, each validates."""
    config: ExamplesConfig = trial.config
    if not isinstance(config, TrainingConfig):
        return Cost("", 1, 0, 0, pace.step / 3600)
    one = training_cost(config, tasks, pace)
    times = trial.contender.method.trainings
    if times == 1:
        return one
    steps_alone = training_cost(config.model_copy(update={"validation_shots": 0}), tasks, pace)
    hours = times * one.hours - (times - 1) * steps_alone.hours
    return replace(one, steps=times * one.steps, tokens=times * one.tokens, hours=hours)


def _answering(rows: Sequence[int], tasks: Sequence[Texts], pace: Pace) -> float:
    """Return the hours that answers to so many rows of each task take."""
    tokens = sum(count * (task.tokens + pace.length) for count, task in zip(rows, tasks, strict=True))
    return tokens * pace.row / pace.tokens / 3600


def training_cost(config: TrainingConfig, tasks: Sequence[Texts], pace: Pace) -> Cost:
    """Return what one training of tasks takes, validations included."""
    drawn = [task.drawn(config.shots) for task in tasks]
    steps = config.steps_of(sum(drawn))
    size = min(config.batch_size, drawn[0]) if len(tasks) == 1 else config.batch_size
    tokens = size * (_mean([t.tokens for t in tasks]) + pace.length)
    hours = steps * pace.step * tokens / (pace.size * pace.tokens) / 3600
    if config.validates:
        shots = config.shots and config.validation_shots
        most = [config.validation_rows if shots is None else shots * task.classes for task in tasks]
        rows = [min(count, task.validation) for count, task in zip(most, tasks, strict=True)]
        hours += (1 + math.ceil(steps / config.validate_every)) * _answering(rows, tasks, pace)
    return Cost("", 1, steps, steps * tokens, hours)


UNKNOWN = Pace(math.nan, 1, math.nan, math.nan)


class _Unmeasured:
    """What stands in a meter's place where no row is at hand to measure on."""

    def teaching(self, _: Recipe) -> Pace:
        """Return an unknown pace."""
        return UNKNOWN

    distilling = teaching


class _Meter:
    """Measures stages on the first source task, and methods on the first target of their runs."""

    def __init__(self, loaded: Loaded, scratch: Path, say: Callable[[str], None]) -> None:
        self._loaded, self._scratch, self._say = loaded, scratch, say
        self._sources = Sources(replace(loaded, recipe=self._bare(loaded.recipe)), scratch, lambda _: None)
        self._texts: dict[str, Texts] = {}

    def backbone(self, recipe: Recipe) -> Backbone:
        """Return the frozen model."""
        return self._sources.backbone(recipe)

    def texts(self, task: TaskRows) -> Texts:
        """Count a task's rows, and the tokens of some."""
        if task.name not in self._texts:
            data = task.data(*(SPLITS if task in self._loaded.targets else SPLITS[:2]))
            recipe = self._loaded.recipe
            longest = recipe.adapt.max_input_tokens if data.test else recipe.teach.max_input_tokens
            drawn = [e.input for e in draw_rows(data.train, COUNTED, seed=0)]
            tokens = _mean([len(ids) for ids in encode_inputs(self.backbone(recipe), drawn, longest, 0, 0)])
            tokens += chat.size if (chat := chat_for(task.task, self.backbone(recipe))) else 0
            rows, labels = (len(data.train), len(data.validation), len(data.test)), max(1, len(task.task.verbalizer))
            self._texts[task.name] = Texts(tokens, *rows, labels)
        return self._texts[task.name]

    def teaching(self, recipe: Recipe) -> Pace:
        """Measure stage 1."""
        self._say("measuring: teachers")
        task, length = self._loaded.sources[0], recipe.teach.prompt_length
        step = _each(lambda n: teach(task, self.backbone(recipe), _short(recipe.teach, n)), *STEPS)
        untrained = System(torch.zeros(length, self.backbone(recipe).width), length, self.backbone(recipe))
        return self._pace(step, recipe.teach, untrained, task)

    def distilling(self, recipe: Recipe) -> Pace:
        """Measure stage 2."""
        self._say("measuring: source training")
        teachers, backbone = self._sources.teachers(self._bare(recipe)), self.backbone(recipe)
        students: list[MultitaskPrompt] = []

        def run(steps: int) -> None:
            students[:] = [distill(self._loaded.sources, teachers, backbone, _short(recipe.distill, steps))]

        step = _each(run, *STEPS)
        student = System.of_prompt(students[0], backbone)
        pace = self._pace(step, recipe.distill, student, self._loaded.sources[0])
        tokens = _mean([self.texts(task).tokens for task in self._loaded.sources]) + student.length
        return replace(pace, size=recipe.distill.batch_size, tokens=tokens, row=pace.row * tokens / pace.tokens)

    def method(self, trial: Trial) -> Pace:
        """Measure a method on the first target of one of its runs."""
        contender, task = trial.contender, trial.targets[0]
        if contender.method.begins_with == "nothing":
            return Pace(0, 1, 0, 1)
        self._say(f"measuring: {trial.name}")
        config: ExamplesConfig | None = trial.config if contender.trainings else None
        systems: list[Sequence[System]] = []

        def run(steps: int) -> None:
            short: dict[tuple[str, ...], ExamplesConfig] = {(task.name,): _short(config, steps)} if config else {}
            settings = self._bare(contender.settings)
            settings = settings.model_copy(update={"adapt": _short(settings.adapt, steps)})
            brief = replace(contender, settings=settings, trainings=short)
            shots = _size(config) if config else 0
            systems[:] = [
                contender.method.function(replace(trial, contender=brief, targets=(task,), shots=shots), self._sources)
            ]

        run(0)  # what is made once, a multitask prompt say, is not counted
        if isinstance(config, TrainingConfig):
            step = _each(run, *STEPS)
        else:
            started = time.monotonic()
            run(0)
            step = time.monotonic() - started if config else 0.0
        return self._pace(step, config, systems[0][0], task)

    def _bare(self, recipe: Recipe) -> Recipe:
        """Return a recipe whose teachers and multitask prompts are untrained, of the right shapes."""
        return recipe.model_copy(update={s: _short(getattr(recipe, s), 0) for s in ("teach", "distill")})

    def _pace(self, step: float, config: ExamplesConfig | None, system: System, task: TaskRows) -> Pace:
        split: Split = "test" if task in self._loaded.targets else "validation"
        evaluate = self._loaded.recipe.evaluate

        def ask(rows: int) -> object:
            return system.answer(task, split, evaluate.model_copy(update={"rows": rows}))

        texts = self.texts(task)
        size = min(_size(config), texts.drawn(_size(config))) if config else 1
        return Pace(step, size, _each(ask, *ROWS), texts.tokens + system.length, system.length, system.trained)


def _short(config: Any, steps: int) -> Any:
    """Return a configuration of few steps, if it takes any, with as many shots as fill its batches.

    What an adaptation takes with unlabelled rows, its teachers and its student, is measured as part of its steps.
    """
    few = {"steps": steps, "epochs": None} if isinstance(config, TrainingConfig) else {}
    if isinstance(config, AdaptConfig):
        students = math.ceil(steps * config.unlabelled_steps / max(1, config.steps))
        few |= {"most_epochs": None, "unlabelled_steps": students}
        few["unlabelled_rows"] = min(config.unlabelled_rows, config.batch_size)
    return config.model_copy(update={**few, "shots": _size(config), "validation_shots": 0})


def _size(config: ExamplesConfig) -> int:
    """Return how many rows a step reads; of what takes no steps, as many shots as are usual."""
    return config.batch_size if isinstance(config, TrainingConfig) else SHOTS


def _each(run: Callable[[int], object], few: int, many: int) -> float:
    """Return the seconds of one more by the difference of two runs; where noise hides it, with what is around it."""
    run(few)  # the first is slower
    spent = []
    for amount in (few, many):
        started = time.monotonic()
        run(amount)
        spent.append(time.monotonic() - started)
    more = (spent[1] - spent[0]) / (many - few)
    return more if more > 0 else spent[1] / many


def _sum(what: str, parts: Sequence[Cost]) -> Cost:
    return Cost(what, *(sum(getattr(p, f) for p in parts) for f in ("runs", "steps", "tokens", "hours")))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}"
