"""The tasks that come with the package, and tasks from YAML files."""

import difflib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from mptune.errors import ConfigError, UnknownNameError, UsageError
from mptune.files import beside, read_yaml
from mptune.tasks.glue import GLUE
from mptune.tasks.mrqa import MRQA
from mptune.tasks.nlg import NLG
from mptune.tasks.others import OTHERS
from mptune.tasks.protocols import OWN_SPLITS
from mptune.tasks.rows import FORMATS
from mptune.tasks.superglue import SUPERGLUE
from mptune.tasks.task import PROTOCOLS, SPLITS, Task

_NEAR = 0.8  # how alike a name and a file of one's own are, to be thought of before the tasks that come along

_PUBLIC = (*GLUE, *SUPERGLUE, *MRQA, *OTHERS, *NLG)


@cache
def builtin_tasks() -> dict[str, Task]:
    """Return the tasks that come with the package by name: written samples first, then public data sets."""
    folder = Path(str(files("mptune") / "samples"))
    samples = [load_task(path) for path in sorted(folder.glob("*.yaml"))]
    return {task.name: task for task in (*samples, *(public.task for public in _PUBLIC))}


@cache
def paper_tasks() -> dict[str, Task]:
    """Return the public data sets under the paper's protocol, by name."""
    return {public.task.name: public.paper_task() for public in _PUBLIC}


def load_task(path: str | Path) -> Task:
    """Return the task of a YAML file; its data files stand relative to that file.

    Raises:
        ConfigError: the file cannot be read, or does not describe a task.
    """
    path = beside(Path(), str(path))
    values = read_yaml(path)
    _dataset_shorthand(values)
    return Task.read(values, str(path)).located(path.parent)


def refuse_table(name: str) -> None:
    """Raise UsageError where a file of rows is named, and what they are is wanted."""
    if name.removesuffix(".gz").endswith(tuple(f".{ending}" for ending in FORMATS)):
        raise UsageError(f"{name} is a table, and no task; `mptune init {name}` writes the task that it is")


def get_task(name: str) -> Task:
    """Return the built-in task of that name, or the task of that YAML file.

    Args:
        name: ``mnli@paper`` is the task under the paper's protocol; ``mnli``, or ``mnli@recommended``, under ours.

    Raises:
        UnknownNameError: neither, or no such protocol; suggests the nearest name.
        ConfigError: the file does not describe a task.
    """
    if name.endswith((".yaml", ".yml")):
        return load_task(name)
    refuse_table(name)
    name, at, protocol = name.partition("@")
    if at and protocol not in PROTOCOLS:
        raise UnknownNameError(
            "protocol", protocol, PROTOCOLS, f"Write {' or '.join(f'{name}@{p}' for p in PROTOCOLS)}."
        )
    known = paper_tasks() if protocol == "paper" else builtin_tasks()
    if name in known:
        return known[name]
    if name in builtin_tasks():
        raise UnknownNameError("task of the paper", name, (), f"Its own are {', '.join(known)}.")
    hint = "`mptune tasks` lists them; a task of yours is a .yaml file."
    if own := _own_file(name):
        raise UnknownNameError("task", name, (), f"Did you mean {own}? {hint}")
    raise UnknownNameError("task", name, builtin_tasks(), hint)


def _own_file(name: str) -> str | None:
    """Return the task's file in the working folder that a name without ending may mean."""
    with suppress(OSError, ValueError):
        folder = Path(name).parent
        files = {path.stem.casefold(): str(path) for ending in ("yml", "yaml") for path in folder.glob(f"*.{ending}")}
        near = difflib.get_close_matches(Path(name).name.casefold(), files, 1, _NEAR)
        return files[near[0]] if near else None
    return None


def get_tasks(names: Sequence[str]) -> list[Task]:
    """Return the tasks of those names, each name once.

    Raises:
        ConfigError: two of them have the same name.
    """
    tasks = [get_task(name) for name in names]
    seen = [task.name for task in tasks]
    twice = sorted({name for name in seen if seen.count(name) > 1})
    if twice:
        raise ConfigError("tasks", [f"{', '.join(twice)} stands twice; names must differ"])
    return tasks


def _dataset_shorthand(values: dict[str, Any]) -> None:
    """Let ``dataset: {hub: {...}}`` stand without split names: they are the field names then."""
    dataset = values.get("dataset")
    if isinstance(dataset, dict) and "hub" in dataset and not any(split in dataset for split in SPLITS):
        values["dataset"] = {**OWN_SPLITS, **dataset}
