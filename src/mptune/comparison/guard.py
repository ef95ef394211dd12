"""Whether a call of a comparison may add to what its folder holds: more of the same is welcome, nothing else."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mptune.comparison.loaded import Loaded
from mptune.comparison.methods import METHODS, target_sections
from mptune.comparison.results import FILES, FROM, RECIPE, Line, TrainingRecord, read_object
from mptune.config import ExamplesConfig
from mptune.errors import DataError, ResumeError
from mptune.files import digest, write_file
from mptune.stages.difference import change_told, first_difference
from mptune.tasks.data import TaskRows, draw_rows
from mptune.tasks.task import SPLITS, Example

# What may change between two calls that fill one folder: more of the same. The budget stands in the sections, and rows
# are compared themselves, wherever they lie.
FREE = ("name", "out", "targets", "seen", "methods", "shots", "seeds", "budget", "data")
# What only methods read that begin with source tasks or a multitask prompt.
BEGINNING = ("sources", "source_seeds", "multitask", "begins_with", "spot_source", "teach", "distill")
UNCOMPARED = {"name", "dataset", "description"}  # of a task: its rows are compared by their hashes


def refuse_change(folder: Path, loaded: Loaded, lines: Sequence[Line]) -> None:
    """Refuse a folder that no comparison made, or whose results come from other settings, tasks or groups.

    While it holds no results anything may change: prompts are checked one by one where they lie.

    Raises:
        ResumeError: naming the first field that differs.
    """
    before = _noted(folder)
    if not before or not lines:
        return
    now, free = _of_now(loaded), {*FREE, *_unread(before, lines)}
    kept = [{k: v for k, v in each.items() if k not in free} for each in (before, now)]
    kept[1] = {k: v for k, v in kept[1].items() if k in before or v != _default(loaded, k)}
    for each in kept if loaded.sources else ():  # of the same sources, which are compared too
        each["spot_source"] = each.get("spot_source") or loaded.sources[0].name
    for part, of in (("variants", "method"), ("tasks", "task")):  # those without results may change
        common = before[part].keys() & now[part].keys() & {getattr(line, of) for line in lines}
        for each in kept:
            each[part] = {name: each[part][name] for name in common}
    for name, then in kept[0]["tasks"].items():  # of versions with other fields
        kept[1]["tasks"][name] = {k: v for k, v in kept[1]["tasks"][name].items() if k in then}
    changed = first_difference(*kept) or _other_group(loaded, lines)
    if changed is not None:
        raise ResumeError(
            f"{folder} holds results {change_told(*changed)}, choose another --out, or remove the folder."
        )


def refuse_bad_rows(sources: Sequence[TaskRows], targets: Sequence[TaskRows]) -> None:
    """Raise one DataError with every problem of every task."""
    failures: list[DataError] = []
    for tasks, splits in ((sources, SPLITS[:2]), (targets, SPLITS)):
        for rows in tasks:
            try:
                rows.data(*splits)
            except DataError as error:
                failures.append(error)
    if failures:
        raise DataError.of_all(failures)


def refuse_other_rows(targets: Sequence[TaskRows], lines: Sequence[Line], asked: int | None) -> None:
    """Refuse rows of target tasks that are not those of the results so far, or are rendered otherwise.

    Args:
        asked: test rows of each task; None for all.

    Raises:
        ResumeError: naming the task.
        DataError: rows that do not fit their task.
    """
    for rows in targets:
        of_task = [line for line in lines if line.task == rows.name]
        tested = {line.test_rows for line in of_task} - {None}
        if tested:
            test = rows.data(*SPLITS).test
            drawn = draw_rows(test, asked or len(test), seed=0)
            if tested != {rows_digest(drawn)}:
                raise _other_rows("test", rows.name)
        for unseen, trained_on in {pair for line in of_task if (pair := _trained_on(line)) is not None}:
            # Where nothing is validated, nothing is held out of the training rows for it.
            data = rows.data("train") if unseen else rows.data("train", "validation")
            if data.digest != trained_on:
                raise _other_rows("training or validation", rows.name)


def note_recipe(folder: Path, loaded: Loaded, lines: Sequence[Line]) -> None:
    """Keep the recipe beside its results, with what its target tasks are; what earlier calls had besides stays.

    Of a task that has results from before there were such notes, none is made: today's may not be what it was.
    """
    now, before = _of_now(loaded), _noted(folder)
    if before:
        unknown = {line.task for line in lines} - before["tasks"].keys()
        now["tasks"] = {name: fields for name, fields in now["tasks"].items() if name not in unknown}
        for part in ("variants", "tasks"):
            now[part] = {**before[part], **now[part]}
    write_file(folder / RECIPE, json.dumps(now, indent=2))


def rows_digest(examples: Sequence[Example]) -> str:
    """Return a hash of rows as they are asked and answered, so that only answers to the same rows are compared."""
    return digest(json.dumps([[e.input, e.target] for e in examples]), 16)


def _other_rows(kind: str, task: str) -> ResumeError:
    return ResumeError(
        f"the {kind} rows of {task} are others than those of the results so far, or rendered otherwise. "
        "Take the old rows and template, or choose another --out."
    )


def _on_target(line: Line) -> TrainingRecord | None:
    """Return the training on a line's target, which is the last; None where there was none."""
    return line.trainings[-1] if line.trainings and line.shots != 0 else None


def _trained_on(line: Line) -> tuple[bool, str] | None:
    """Return whether validation rows were left unread, and the hash of what was read of the line's task."""
    training = _on_target(line)
    if training is None or line.task not in training.data:
        return None
    read = {field: training.config.get(field) for field in ("shots", "validation_shots")}
    return not ExamplesConfig(**read).validates, training.data[line.task]


def _noted(folder: Path) -> dict[str, Any]:
    """Return the recipe that a folder's results come from; nothing where it holds no file of results.

    Raises:
        ResumeError: it holds such files without a recipe, or the recipe is none.
    """
    file = folder / RECIPE
    if not file.is_file():
        others = [name for name in FILES if (folder / name).exists()]
        if others:
            raise ResumeError(
                f"{folder} holds {', '.join(others)} and no {RECIPE}, so no comparison that can go on; "
                "choose another --out"
            )
        return {}
    problems: list[str] = []
    values = {"variants": {}, "tasks": {}, **read_object(file, problems)}
    if not problems and not ({"sources", "targets", "methods"} <= values.keys() and _mappings(values)):
        problems.append(f"{RECIPE} is no recipe of a comparison")
    if problems:
        raise ResumeError(f"{folder} holds no comparison that can go on: {problems[0]}; choose another --out")
    return values


def _default(loaded: Loaded, field: str) -> Any:
    """Return the default of a recipe's field: what it had been in versions that did not have it."""
    known = type(loaded.recipe).model_fields.get(field)
    value = known.get_default(call_default_factory=True) if known else None
    return list(value) if isinstance(value, tuple) else value


def _unread(before: Mapping[str, Any], lines: Sequence[Line]) -> set[str]:
    """Return the fields of a recipe that none of its results has read: they may still change."""
    bases = {name: fields.get("of") for name, fields in before["variants"].items()}
    names = {"from-sources" if line.method.startswith(FROM) else line.method for line in lines}
    methods = [METHODS.get(str(bases.get(name, name))) for name in names]
    read: set[str] = set()
    for method in methods:
        if method is None:  # of another version
            return set()
        read |= {method.section.name} if method.section else set()
        read |= {"adapt"} if method.wants_unlabelled else set()  # whose teachers are those of the adaptation
        read |= set(BEGINNING) if method.begins_with in ("teachers", "multitask prompt") else set()
    return {*target_sections(), *BEGINNING} - read


def _mappings(values: Mapping[str, Any]) -> bool:
    parts = [values["variants"], values["tasks"]]
    return all(isinstance(p, dict) and all(isinstance(v, dict) for v in p.values()) for p in parts)


def _of_now(loaded: Loaded) -> dict[str, Any]:
    tasks = {rows.name: rows.task.model_dump(mode="json", exclude=UNCOMPARED) for rows in loaded.targets}
    begun = {"begins_with": [prompt.digest() for prompt in loaded.multitask]} if loaded.multitask else {}
    return {**loaded.recipe.model_dump(mode="json"), **begun, "tasks": tasks}


def _other_group(loaded: Loaded, lines: Sequence[Line]) -> tuple[str, str, str] | None:
    """Return how the targets of a group that was trained differ from today's: with another target it is another."""
    now = [task.name for task in loaded.targets]
    recipe = loaded.recipe
    grouped = [name for name in recipe.methods if recipe.method(name).runs_on == "all targets"]
    for line in lines:
        training = _on_target(line)
        if line.method in grouped and training and set(training.data) != set(now):
            return "targets", ", ".join(training.data), f"{', '.join(now)} ({line.method} learns all of them at once)"
    return None
