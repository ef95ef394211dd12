"""Whether a call of a comparison may add to what its folder holds: more of the same is welcome, nothing else."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mptune.data import TaskData, draw_rows, load_data
from mptune.errors import ResumeError
from mptune.files import write_file
from mptune.recipes import OF_GROUPS, Loaded
from mptune.results import FILES, RECIPE, read_object
from mptune.runs import first_difference
from mptune.tasks import Example

Lines = Sequence[Mapping[str, Any]]

# What may change between two calls that fill one folder: more of the same. The budget stands in the sections.
FREE = ("name", "out", "targets", "methods", "shots", "seeds", "budget")
UNCOMPARED = {"name", "dataset", "description"}  # of a task: its rows are compared by their hashes


def refuse_change(folder: Path, loaded: Loaded, lines: Lines) -> None:
    """Refuse a folder that no comparison made, or whose results come from other settings, tasks or groups.

    While it holds no results anything may change: prompts are checked one by one where they lie.

    Raises:
        ResumeError: naming the first field that differs.
    """
    before = _noted(folder)
    if not before or not lines:
        return
    now = _of_now(loaded)
    kept = [{k: v for k, v in each.items() if k not in FREE} for each in (before, now)]
    for part, of in (("variants", "method"), ("tasks", "task")):  # those without results may change
        common = before[part].keys() & now[part].keys() & {line[of] for line in lines}
        for each in kept:
            each[part] = {name: each[part][name] for name in common}
    for name, then in kept[0]["tasks"].items():  # of versions with other fields
        kept[1]["tasks"][name] = {k: v for k, v in kept[1]["tasks"][name].items() if k in then}
    changed = first_difference(*kept) or _other_group(loaded, lines)
    if changed is not None:
        field, old, new = changed
        raise ResumeError(
            f"{folder} holds results with {field} = {old}, and now it is {new}. "
            "Take the old value, choose another --out, or remove the folder."
        )


def refuse_other_rows(loaded: Loaded, lines: Lines, read: Mapping[str, TaskData]) -> None:
    """Refuse rows of target tasks that are not those of the results so far, or are rendered otherwise.

    Args:
        read: all splits of each target task.

    Raises:
        ResumeError: naming the task.
        DataError: rows that do not fit their task.
    """
    for task in loaded.targets:
        own = [line for line in lines if line["task"] == task.name]
        tested = {line["test_rows"] for line in own if "test_rows" in line}
        if tested:
            test = read[task.name].test
            rows = draw_rows(test, loaded.recipe.evaluate.rows or len(test), seed=0)
            if tested != {rows_digest(rows)}:
                raise _other_rows("test", task.name)
        for unseen, digest in {pair for line in own if (pair := _trained_on(line)) is not None}:
            # Where nothing is validated, nothing is held out of the training rows for it.
            data = load_data(task, ("train",), loaded.data_dir) if unseen else replace(read[task.name], test=())
            if data.digest != digest:
                raise _other_rows("training or validation", task.name)


def note_recipe(folder: Path, loaded: Loaded, lines: Lines) -> None:
    """Keep the recipe beside its results, with what its target tasks are; what earlier calls had besides stays.

    Of a task that has results from before there were such notes, none is made: today's may not be what it was.
    """
    now, before = _of_now(loaded), _noted(folder)
    if before:
        unknown = {line["task"] for line in lines} - before["tasks"].keys()
        now["tasks"] = {name: fields for name, fields in now["tasks"].items() if name not in unknown}
        for part in ("variants", "tasks"):
            now[part] = {**before[part], **now[part]}
    write_file(folder / RECIPE, json.dumps(now, indent=2))


def rows_digest(examples: Sequence[Example]) -> str:
    """Return a hash of rows as they are asked and answered, so that only answers to the same rows are compared."""
    rows = json.dumps([[e.input, e.target] for e in examples])
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _other_rows(kind: str, task: str) -> ResumeError:
    return ResumeError(
        f"the {kind} rows of {task} are others than those of the results so far, or rendered otherwise. "
        "Take the old rows and template, or choose another --out."
    )


def _on_target(line: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the training on a line's target, which is the last; None where there was none."""
    trainings = line.get("trainings") or ()
    return trainings[-1] if trainings and line["shots"] != 0 else None


def _trained_on(line: Mapping[str, Any]) -> tuple[bool, str] | None:
    """Return whether validation rows were left unread, and the hash of what was read of the line's task."""
    training = _on_target(line)
    digest = training and training["data"].get(line["task"])
    return (training["config"].get("validation_shots") == 0, digest) if training and digest else None


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


def _mappings(values: Mapping[str, Any]) -> bool:
    parts = [values["variants"], values["tasks"]]
    return all(isinstance(p, dict) and all(isinstance(v, dict) for v in p.values()) for p in parts)


def _of_now(loaded: Loaded) -> dict[str, Any]:
    tasks = {task.name: task.model_dump(mode="json", exclude=UNCOMPARED) for task in loaded.targets}
    return {**loaded.recipe.model_dump(mode="json"), "tasks": tasks}


def _other_group(loaded: Loaded, lines: Lines) -> tuple[str, str, str] | None:
    """Return how the targets of a group that was trained differ from today's: with another target it is another."""
    now = [task.name for task in loaded.targets]
    grouped = [method for method in loaded.recipe.methods if loaded.recipe.base(method) in OF_GROUPS]
    for line in lines:
        training = _on_target(line)
        if line["method"] in grouped and training and set(training["data"]) != set(now):
            group = ", ".join(training["data"])
            return "targets", group, f"{', '.join(now)} ({line['method']} learns all of them at once)"
    return None
