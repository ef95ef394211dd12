"""Which versions of a server's tasks answer, as administrators have said: a file that is true before they are told.

What nobody has said anything of is not in it: that is what lies in the folder of prompts.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mptune.errors import ArtifactError, MptuneError, UsageError
from mptune.files import json_object, write_file

JOURNAL = ".serving.json"  # in the folder of prompts


@dataclass(frozen=True)
class Version:
    """Where a task's prompt lies: in which folder, relative to that of all prompts, and which of its tasks it is."""

    folder: str
    number: int


@dataclass(frozen=True)
class ServedTask:
    """A task that is served: its versions, oldest first, and which of them answers."""

    name: str
    versions: tuple[Version, ...]
    current: int

    @property
    def version(self) -> Version:
        """The one that answers."""
        return self.versions[self.current]


@dataclass(frozen=True)
class Said:
    """What administrators have said."""

    tasks: Mapping[str, ServedTask]  # those of which somebody chose the version that answers
    removed: frozenset[str]
    aliases: Mapping[str, str]  # to tasks' names


def read_journal(folder: Path, inside: Callable[[str], Path]) -> Said:
    """Return what was said of a folder of prompts; nothing was where it has no journal.

    Args:
        inside: refuses a folder that lies elsewhere.

    Raises:
        ArtifactError: the journal is damaged.
    """
    file = folder / JOURNAL
    if not file.is_file():
        return Said({}, frozenset(), {})
    try:
        values = json_object(file) or {}
        tasks = {name: _task(name, entry, inside) for name, entry in values["tasks"].items()}
        aliases = {str(alias): str(name) for alias, name in values["aliases"].items()}
        return Said(tasks, frozenset(map(str, values["removed"])), aliases)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise ArtifactError(f"{file} is damaged ({error}); remove it, and the folder's prompts are served") from None


def write_journal(folder: Path, said: Said) -> None:
    """Write what was said.

    Raises:
        MptuneError: it cannot be written; the file is what it was.
    """
    values: dict[str, Any] = {
        "tasks": {name: _as_json(said.tasks[name]) for name in sorted(said.tasks)},
        "removed": sorted(said.removed),
        "aliases": dict(said.aliases),
    }
    try:
        write_file(folder / JOURNAL, json.dumps(values, indent=1))
    except OSError as error:
        raise MptuneError(f"the change cannot be kept: {error.strerror}; nothing was changed") from None


def _task(name: str, entry: Mapping[str, Any], inside: Callable[[str], Path]) -> ServedTask:
    versions = tuple(Version(str(each["folder"]), int(each["number"])) for each in entry["versions"])
    for version in versions:
        inside(version.folder)
    current = int(entry["current"])
    if not 0 <= current < len(versions):
        raise ValueError("no such version")
    return ServedTask(name, versions, current)


def _as_json(entry: ServedTask) -> Mapping[str, Any]:
    versions = [{"folder": version.folder, "number": version.number} for version in entry.versions]
    return {"versions": versions, "current": entry.current}
