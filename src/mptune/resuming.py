"""Whether a call of a comparison may add to what its folder holds: more of the same is welcome, nothing else."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mptune.errors import ResumeError
from mptune.files import write_file
from mptune.recipes import OF_GROUPS, Loaded
from mptune.results import FILES, RECIPE, read_object
from mptune.runs import first_difference

Lines = Sequence[Mapping[str, Any]]

# What may change between two calls that fill one folder: more of the same. The budget stands in the sections.
FREE = ("name", "out", "targets", "methods", "shots", "seeds", "budget")
# What a task is, but for its rows, of which results have hashes.
DEFINED = {
    "template",
    "verbalizer",
    "target",
    "references",
    "metrics",
    "scoring",
    "max_input_tokens",
    "gather",
    "group",
}


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
    tasks = {line["task"] for line in lines}
    kept = [{k: v for k, v in each.items() if k not in FREE} for each in (before, now)]
    common = before["variants"].keys() & now["variants"].keys()  # new ones are welcome
    for each in kept:
        each["variants"] = {name: each["variants"][name] for name in common}
        each["tasks"] = {name: each["tasks"][name] for name in tasks & before["tasks"].keys() & now["tasks"].keys()}
    changed = first_difference(*kept) or _other_group(loaded, lines)
    if changed is not None:
        field, old, new = changed
        raise ResumeError(
            f"{folder} holds results with {field} = {old}, and now it is {new}. "
            "Take the old value, choose another --out, or remove the folder."
        )


def note_recipe(folder: Path, loaded: Loaded) -> None:
    """Keep the recipe beside its results, with what its target tasks are; what earlier calls had besides stays."""
    now, before = _of_now(loaded), _noted(folder)
    for part in ("variants", "tasks"):
        now[part] = {**before.get(part, {}), **now[part]}
    write_file(folder / RECIPE, json.dumps(now, indent=2))


def refuse_other_rows(found: Lines, lines: Lines) -> None:
    """Refuse results on other rows than those so far.

    Raises:
        ResumeError: a task's test rows, or the rows on which it was trained, are not those of the lines before.
    """
    for rows, kind in ((_tested, "test rows"), (_trained, "training or validation rows")):
        before = {key: digest for line in lines for key, digest in rows(line).items()}
        for line in found:
            for key, digest in rows(line).items():
                if before.get(key, digest) != digest:
                    raise ResumeError(
                        f"the {kind} of {key[0]} are others than those of the results so far, or rendered otherwise. "
                        "Take the old rows and template, or choose another --out."
                    )


def _tested(line: Mapping[str, Any]) -> dict[tuple[str, bool], str]:
    return {(line["task"], True): line["test_rows"]} if "test_rows" in line else {}


def _trained(line: Mapping[str, Any]) -> dict[tuple[str, bool], str]:
    """Return the hash of each task's rows; a training that holds none out does not read the validation rows."""
    return {
        (task, training["config"].get("validation_shots") == 0): digest
        for training in line.get("trainings", ())
        for task, digest in training["data"].items()
    }


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
    values = read_object(file, problems)
    values = {"variants": {}, "tasks": {}, **values}
    if problems or not {"sources", "targets", "methods"} <= values.keys() or not _mappings(values):
        raise ResumeError(f"{file} is damaged or no recipe of a comparison; choose another --out")
    return values


def _mappings(values: Mapping[str, Any]) -> bool:
    parts = [values["variants"], values["tasks"]]
    return all(isinstance(p, dict) and all(isinstance(v, dict) for v in p.values()) for p in parts)


def _of_now(loaded: Loaded) -> dict[str, Any]:
    tasks = {task.name: task.model_dump(mode="json", include=DEFINED) for task in loaded.targets}
    return {**loaded.recipe.model_dump(mode="json"), "tasks": tasks}


def _other_group(loaded: Loaded, lines: Lines) -> tuple[str, str, str] | None:
    """Return how the targets of a group that was trained differ from today's: with another target it is another."""
    now = [task.name for task in loaded.targets]
    for method in loaded.recipe.methods:
        group = list(dict.fromkeys(line["task"] for line in lines if line["method"] == method))
        if loaded.recipe.base(method) in OF_GROUPS and group and group != now:
            return "targets", ", ".join(group), f"{', '.join(now)} ({method} learns all of them at once)"
    return None
