"""The tasks of a server by name: what lies in a folder of prompts, which version answers, what is ready to be read.

A task costs its name and its place here. Its u and v stay in their file until a row wants them, and are kept while
there is room, beside a shared prompt that all tasks with an equal one have in common. A batch collapses what it reads.
"""

import hashlib
import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from mptune.config import ExamplesConfig
from mptune.errors import ArtifactError, BackboneMismatch, DataError, MptuneError, UnknownNameError, UsageError
from mptune.files import json_object, write_file
from mptune.model.backbone import Backbone
from mptune.model.encoding import Encoded, encode
from mptune.prompts.card import Calibration
from mptune.prompts.folder import read_task
from mptune.prompts.stored import PROMPT_FILE, Glance, glance, prompt_folders
from mptune.prompts.vectors import TaskVectors, compose
from mptune.tasks.task import Task

JOURNAL = ".serving.json"  # in the folder of prompts: what was added, replaced and removed while a server ran
KEPT_VERSIONS = 10  # of a task, to roll back to
MEGABYTE = 1_000_000
OF_A_TASK = 8_000  # bytes, about: a task's description, its label words as tokens, its place here


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


@dataclass(frozen=True, eq=False)
class Ready:
    """A version that can be read: one whole prompt, whatever is done to its task meanwhile."""

    name: str
    version: Version
    task: Task
    words: Encoded  # the task's label words and place in a chat, without rows
    calibration: Calibration | None  # what held-out rows say of its confidences
    shared: Tensor  # P* [L, D], on the backbone's device; one for all tasks that have an equal one
    vectors: TaskVectors  # u [1, L, R], v [1, R, D]
    scores: tuple[Mapping[str, Any], ...] = ()  # of the task, as the card has them

    def __len__(self) -> int:
        """L, soft tokens."""
        return len(self.shared)

    def collapse(self) -> Tensor:
        """Return the prompt, from u and v anew: some microseconds, and D numbers in place of L times as many. [L, D]"""
        return compose(self.shared, self.vectors)[0]

    @property
    def size(self) -> int:
        """Bytes that it takes beside the shared prompt."""
        return OF_A_TASK + self.vectors.u.nbytes + self.vectors.v.nbytes


class Store:
    """The tasks of a folder of prompts, by name. Safe between threads."""

    def __init__(self, folder: Path, backbone: Backbone, config: ExamplesConfig, megabytes: int) -> None:
        """Find the tasks of a folder, as they were when a server last acknowledged a change.

        Args:
            megabytes: of prompts that are kept ready.

        Raises:
            ArtifactError: no prompt is there, or the journal is damaged.
            UsageError: two prompts of one task, neither of which was chosen.
        """
        self.folder, self.backbone, self.lengths = folder.resolve(), backbone, config
        self._lock = threading.RLock()
        self._ready: OrderedDict[tuple[Version, int], Ready] = OrderedDict()  # the least lately read first
        self._room, self._held = megabytes * MEGABYTE, 0
        self._shared: WeakValueDictionary[str, Tensor] = WeakValueDictionary()  # by their digests
        self._sharing: Counter[int] = Counter()  # how many prompts that are ready have each
        self.refused: dict[str, str] = {}  # folders that are not served, and why
        self._aliases: dict[str, str] = {}
        self._entries: dict[str, ServedTask] = {}
        self._removed: set[str] = set()
        self._chosen: set[str] = set()  # tasks of which somebody said which version answers
        self._replay()
        self._scan()

    # -- what is asked at every row -----------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of all tasks, sorted."""
        with self._lock:
            return sorted(self._entries)

    def aliases(self) -> dict[str, str]:
        """Return other names of tasks."""
        with self._lock:
            return dict(self._aliases)

    def entry(self, name: str) -> ServedTask:
        """Return a task by its name or an alias.

        Raises:
            UnknownNameError: there is none.
        """
        with self._lock:
            found = self._entries.get(self._aliases.get(name, name))
            if found is None:
                hint = f"There are {len(self._entries):,}: GET /v1/models lists them."
                raise UnknownNameError("task", name[:80], [*self._entries, *self._aliases], hint)
            return found

    def ready(self, name: str) -> Ready:
        """Return a task's current version, whole.

        Raises:
            UnknownNameError: no such task.
            ArtifactError: its file is gone or damaged, or was made for another model.
        """
        with self._lock:
            entry = self.entry(name)
            version = entry.version
            file = self.folder / version.folder / PROMPT_FILE
            try:
                changed = file.stat().st_mtime_ns
            except OSError:
                raise ArtifactError(f"the prompt of {entry.name} is gone from its folder; add it again") from None
            found = self._ready.get((version, changed))
            if found is None:
                found = self._load(entry.name, version, file)
                self._keep((version, changed), found)
            else:
                self._ready.move_to_end((version, changed))
            return found

    def collapsed(self, name: str) -> Tensor:
        """Return a task's prompt from its file, and keep nothing: who looks at all tasks sends none of them away.

        Raises:
            UnknownNameError: no such task.
            ArtifactError: its file is gone or damaged.

        Returns:
            In float32, where the processor has it. [L, D]
        """
        version = self.entry(name).version
        _, shared, vectors = read_task(self.folder / version.folder / PROMPT_FILE, version.number)
        return compose(shared, vectors)[0]

    def _load(self, name: str, version: Version, file: Path) -> Ready:
        card, shared, vectors = read_task(file, version.number)
        if card.fingerprint != self.backbone.fingerprint:
            raise BackboneMismatch(f"the prompt of {name} was trained for another model than {self._model}")
        (task,) = card.tasks
        words = encode(task, [], self.backbone, self.lengths, len(shared))
        # Equal ones are told by their digest, and are not copied: the heap would be full of holes of that size.
        known = hashlib.sha256(shared.contiguous().numpy().data).hexdigest()
        one = self._shared.get(known)
        if one is None:
            one = self._shared[known] = self._own(shared)
        own = TaskVectors(self._own(vectors.u), self._own(vectors.v))
        scores = tuple(score for score in card.scores if score["task"] == task.name)
        return Ready(name, version, task, words, card.calibration_of(task.name), one, own, scores)

    def _own(self, view: Tensor) -> Tensor:
        return view.to(self.backbone.device, copy=True)

    def _keep(self, key: tuple[Version, int], ready: Ready) -> None:
        """Keep a prompt ready, and forget those that nobody has asked for longest where there is no room for all."""
        self._ready[key] = ready
        self._count(ready, +1)
        while self._held > self._room and len(self._ready) > 1:
            self._count(self._ready.popitem(last=False)[1], -1)

    def _count(self, ready: Ready, change: int) -> None:
        """Count the bytes of a prompt that is kept or forgotten; a shared prompt is there once for all of its tasks."""
        shared = id(ready.shared)
        alone = self._sharing[shared] == (0 if change > 0 else 1)
        self._sharing[shared] += change
        self._held += change * (ready.size + (ready.shared.nbytes if alone else 0))
        if not self._sharing[shared]:
            del self._sharing[shared]

    # -- what an administrator does -----------------------------------------------------------------------------------

    def put(self, folder: str, name: str | None = None, *, over: Version | None = None) -> tuple[ServedTask, ...]:
        """Serve the tasks of a prompt's folder; one that is served already gets a new version, which answers from now.

        Args:
            folder: inside the folder of prompts.
            name: of the only task that may be meant; all of the prompt's without it.
            over: the version that must still be the one that answers; any, or none, without it.

        Raises:
            UsageError: a folder outside, or a prompt without a task of that name; or another version answers now.
            ArtifactError: no prompt, a damaged one, or one of another model.
        """
        place = self.inside(folder)
        seen = self._fitting(glance(place))
        if name is not None and name not in seen.tasks:
            raise UsageError(f"the prompt in {folder} is of {', '.join(seen.tasks)}, and not of {name}")
        wanted = [name] if name is not None else list(seen.tasks)
        with self._lock:
            for each in wanted:
                if each in self._aliases:
                    raise UsageError(f"{each} is another name of {self._aliases[each]}; remove that first")
            before = dict(self._entries), set(self._removed)
            for each in wanted:
                version = Version(str(place.relative_to(self.folder)), seen.tasks.index(each))
                read_task(place / PROMPT_FILE, version.number)  # whole, or it does not come in
                known = self._entries.get(each)
                if over is not None and (known is None or known.version != over):
                    raise UsageError(f"another version of {each} than {over.folder} answers meanwhile, or none")
                older = known.versions[: known.current + 1] if known else ()  # what was rolled back is not kept
                versions = (*older, version)[-KEPT_VERSIONS:]
                self._entries[each] = ServedTask(each, versions, len(versions) - 1)
                self._removed.discard(each)
            self._chosen.update(wanted)
            self._write(before)
            return tuple(self._entries[each] for each in wanted)

    def remove(self, name: str) -> ServedTask:
        """Serve a task no longer; its folder stays.

        Raises:
            UnknownNameError: no such task.
        """
        with self._lock:
            before = dict(self._entries), set(self._removed)
            entry = self.entry(name)
            del self._entries[entry.name]
            self._removed.add(entry.name)
            self._write(before)
            return entry

    def roll_back(self, name: str) -> ServedTask:
        """Let the version before the current one answer again.

        Raises:
            UnknownNameError: no such task.
            UsageError: there is no version before.
        """
        with self._lock:
            before = dict(self._entries), set(self._removed)
            entry = self.entry(name)
            if entry.current == 0:
                raise UsageError(f"{entry.name} has no version before {entry.version.folder}; it cannot be rolled back")
            self._entries[entry.name] = replace(entry, current=entry.current - 1)
            self._chosen.add(entry.name)
            self._write(before)
            return self._entries[entry.name]

    def alias(self, alias: str, name: str | None) -> None:
        """Give a task another name, or take one from it (None).

        Raises:
            UsageError: a task has that name itself.
            UnknownNameError: no such task, or no such alias.
        """
        with self._lock:
            aliases = dict(self._aliases)
            if name is None:
                if alias not in aliases:
                    raise UnknownNameError("alias", alias, aliases, "GET /v1/models lists them.")
                del aliases[alias]
            else:
                if alias in self._entries:
                    raise UsageError(f"{alias} is a task of its own; an alias wants a name that is free")
                aliases[alias] = self.entry(name).name
            before, self._aliases = self._aliases, aliases
            try:
                self._write((dict(self._entries), set(self._removed)))
            except MptuneError:
                self._aliases = before
                raise

    def inside(self, folder: str) -> Path:
        """Return a folder of the prompts' folder, links followed.

        Raises:
            UsageError: it lies elsewhere.
        """
        try:
            place = (self.folder / folder).resolve()
            place.exists()
        except (OSError, ValueError, RuntimeError):  # no name of a file system
            place = self.folder
        if place == self.folder or not place.is_relative_to(self.folder):
            raise UsageError(f"wants a folder inside the prompts' folder; got {folder!r:.80}")
        return place

    # -- files --------------------------------------------------------------------------------------------------------

    @property
    def _model(self) -> str:
        return self.backbone.config.name

    def _fitting(self, seen: Glance) -> Glance:
        if seen.fingerprint != self.backbone.fingerprint or seen.width != self.backbone.width:
            raise BackboneMismatch(f"the prompt of {', '.join(seen.tasks)} was trained for {seen.backbone}, and a soft "
                                   f"prompt fits no other model; this server has {self._model}")  # fmt: skip
        return seen

    def _scan(self) -> None:
        """Serve what lies in the folder, but for what was removed; what is damaged or of another model is named."""
        chosen = {version.folder for entry in self._entries.values() for version in entry.versions}
        found: dict[str, list[Version]] = {}
        for place in prompt_folders(self.folder) if self._holds_prompts() else []:
            if not place.resolve().is_relative_to(self.folder):
                self.refused[place.name] = "it lies outside the folder of prompts"
                continue
            folder = str(place.resolve().relative_to(self.folder))
            if folder in chosen:
                continue
            try:
                seen = self._fitting(glance(place))
            except (ArtifactError, DataError) as error:
                self.refused[folder] = str(error)
                continue
            for number, name in enumerate(seen.tasks):
                found.setdefault(name, []).append(Version(folder, number))
        for name, versions in found.items():
            if name in self._removed or name in self._entries:
                continue
            if len(versions) > 1:
                places = ", ".join(version.folder for version in versions)
                raise UsageError(f"{len(versions)} prompts are there for the task {name!r}: {places}. Keep one of them "
                                 "in the folder, and add the other while the server runs: PUT /v1/tasks.")  # fmt: skip
            self._entries[name] = ServedTask(name, tuple(versions), 0)

    def _holds_prompts(self) -> bool:
        if not self.folder.is_dir():
            raise UsageError(f"{self.folder} is no folder; name the one that holds the prompts")
        if (self.folder / PROMPT_FILE).is_file():
            raise UsageError(f"{self.folder} is a prompt itself; name the folder in which it lies")
        return any(self.folder.glob(f"*/{PROMPT_FILE}"))

    def _replay(self) -> None:
        file = self.folder / JOURNAL
        if not file.is_file():
            return
        try:
            values = json_object(file) or {}
            for name, entry in values["tasks"].items():
                versions = tuple(Version(str(each["folder"]), int(each["number"])) for each in entry["versions"])
                for version in versions:
                    self.inside(version.folder)
                current = int(entry["current"])
                if not 0 <= current < len(versions):
                    raise ValueError("no such version")
                self._entries[name] = ServedTask(name, versions, current)
            self._chosen, self._removed = set(self._entries), set(map(str, values["removed"]))
            self._aliases = {str(alias): str(name) for alias, name in values["aliases"].items()}
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise ArtifactError(
                f"{file} is damaged ({error}); remove it, and the folder's prompts are served"
            ) from None

    def _write(self, before: "tuple[dict[str, ServedTask], set[str]]") -> None:
        """Write the journal, and only then is a change true; where it cannot be written, nothing has changed."""
        values: dict[str, Any] = {
            "tasks": {name: _as_json(self._entries[name]) for name in sorted(self._chosen & set(self._entries))},
            "removed": sorted(self._removed),
            "aliases": self._aliases,
        }
        try:
            write_file(self.folder / JOURNAL, json.dumps(values, indent=1))
        except OSError as error:
            self._entries, self._removed = before
            raise MptuneError(f"the change cannot be kept: {error.strerror}; nothing was changed") from None


def _as_json(entry: ServedTask) -> Mapping[str, Any]:
    versions = [{"folder": version.folder, "number": version.number} for version in entry.versions]
    return {"versions": versions, "current": entry.current}
