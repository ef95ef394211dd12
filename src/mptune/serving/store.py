"""The tasks of a server by name: what lies in a folder of prompts, which version answers, what is ready to be read.

A task costs its name and its place here. Its u and v stay in their file until a row wants them, and are kept while
there is room, beside a shared prompt that all tasks with an equal one have in common. A batch collapses what it reads.
"""

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from mptune.config import ExamplesConfig
from mptune.errors import ArtifactError, BackboneMismatch, DataError, UnknownNameError, UsageError
from mptune.model.backbone import Backbone
from mptune.model.encoding import Encoded, encode
from mptune.prompts.card import Calibration
from mptune.prompts.folder import read_task
from mptune.prompts.stored import PROMPT_FILE, Glance, glance, prompt_folders
from mptune.prompts.vectors import TaskVectors, compose
from mptune.serving.journal import Said, ServedTask, Version, read_journal, write_journal
from mptune.tasks.task import Task

KEPT_VERSIONS = 10  # of a task, to roll back to
MEGABYTE = 1_000_000
OF_A_TASK = 8_000  # bytes, about: a task's description, its label words as tokens, its place here


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
        self._unchosen: list[str] = []  # of these, why nobody could choose
        said = read_journal(self.folder, self.inside)
        self._aliases, self._removed = dict(said.aliases), set(said.removed)
        self._entries: dict[str, ServedTask] = dict(said.tasks)
        self._chosen = set(said.tasks)  # tasks of which somebody said which version answers
        self._seen: dict[Path, tuple[int, Glance]] = {}  # when files were changed, and what they were then
        self.look()
        if self._unchosen:
            raise UsageError(self._unchosen[0])

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

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let something change. It is true once it is written; where that fails, or the change, nothing has changed."""
        with self._lock:
            before = dict(self._entries), set(self._removed), set(self._chosen), dict(self._aliases)
            try:
                yield
                tasks = {name: self._entries[name] for name in self._chosen & set(self._entries)}
                write_journal(self.folder, Said(tasks, frozenset(self._removed), self._aliases))
            except BaseException:
                self._entries, self._removed, self._chosen, self._aliases = before
                raise

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
        with self._changing():
            for each in wanted:
                if each in self._aliases:
                    raise UsageError(f"{each} is another name of {self._aliases[each]}; remove that first")
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
            return tuple(self._entries[each] for each in wanted)

    def remove(self, name: str) -> ServedTask:
        """Serve a task no longer; its folder stays.

        Raises:
            UnknownNameError: no such task.
        """
        with self._changing():
            entry = self.entry(name)
            del self._entries[entry.name]
            self._removed.add(entry.name)
            return entry

    def roll_back(self, name: str) -> ServedTask:
        """Let the version before the current one answer again.

        Raises:
            UnknownNameError: no such task.
            UsageError: there is no version before.
        """
        with self._changing():
            entry = self.entry(name)
            if entry.current == 0:
                raise UsageError(f"{entry.name} has no version before {entry.version.folder}; it cannot be rolled back")
            self._entries[entry.name] = replace(entry, current=entry.current - 1)
            self._chosen.add(entry.name)
            return self._entries[entry.name]

    def alias(self, alias: str, name: str | None) -> None:
        """Give a task another name, or take one from it (None).

        Raises:
            UsageError: a task has that name itself.
            UnknownNameError: no such task, or no such alias.
        """
        with self._changing():
            if name is None:
                if alias not in self._aliases:
                    raise UnknownNameError("alias", alias[:80], self._aliases, "GET /v1/models lists them.")
                del self._aliases[alias]
            else:
                if alias in self._entries:
                    raise UsageError(f"{alias} is a task of its own; an alias wants a name that is free")
                self._aliases[alias] = self.entry(name).name

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

    def look(self) -> tuple[list[str], list[str]]:
        """Look at the folder, and serve the tasks of which nobody has said anything as they lie there.

        What is damaged or of another model is named in `refused`; so are two prompts of one task, which nobody chose
        between: the one that is served stays.

        Returns:
            Names of tasks that came or lie elsewhere now, and of those that went.

        Raises:
            UsageError: no folder is there.
        """
        found, refused = self._found()
        with self._lock:
            self.refused, self._unchosen, came = refused, [], []
            gone = {name for name in self._entries if name not in self._chosen} - set(found)
            # Of a file that is damaged, or is being written, nothing is known yet.
            went = [name for name in gone if self._entries[name].version.folder not in refused]
            for name, versions in found.items():
                if name in self._removed or name in self._chosen:
                    continue
                kept = self._entries.get(name)
                if len(versions) > 1:
                    self._unchosen.append(_unchosen(name, versions))
                    self.refused[", ".join(version.folder for version in versions)] = self._unchosen[-1]
                    went += [name] if kept is not None and kept.version not in versions else []
                elif kept is None or kept.versions != tuple(versions):
                    self._entries[name] = ServedTask(name, tuple(versions), 0)
                    came.append(name)
            for name in went:
                del self._entries[name]
            return sorted(came), sorted(went)

    def _found(self) -> tuple[dict[str, list[Version]], dict[str, str]]:
        """Return where the tasks of the folder's prompts lie, and why some do not count.

        A file that has not changed since it was looked at is not opened again.
        """
        with self._lock:
            chosen = {v.folder for name in self._chosen & set(self._entries) for v in self._entries[name].versions}
        found: dict[str, list[Version]] = {}
        refused: dict[str, str] = {}
        seen: dict[Path, tuple[int, Glance]] = {}
        for place in prompt_folders(self.folder) if self._holds_prompts() else []:
            real = place.resolve()
            if not real.is_relative_to(self.folder):
                refused[place.name] = "it lies outside the folder of prompts"
                continue
            folder = str(real.relative_to(self.folder))
            if folder in chosen:
                continue
            try:
                changed = (real / PROMPT_FILE).stat().st_mtime_ns
                before, known = self._seen.get(real, (None, None))
                known = self._fitting(glance(real)) if known is None or before != changed else known
            except OSError:  # it went meanwhile
                continue
            except (ArtifactError, DataError) as error:
                refused[folder] = str(error)
                continue
            seen[real] = changed, known
            for number, name in enumerate(known.tasks):
                found.setdefault(name, []).append(Version(folder, number))
        self._seen = seen
        return found, refused

    def _holds_prompts(self) -> bool:
        if not self.folder.is_dir():
            raise UsageError(f"{self.folder} is no folder; name the one that holds the prompts")
        if (self.folder / PROMPT_FILE).is_file():
            raise UsageError(f"{self.folder} is a prompt itself; name the folder in which it lies")
        return any(self.folder.glob(f"*/{PROMPT_FILE}"))


def _unchosen(name: str, versions: Sequence[Version]) -> str:
    places = ", ".join(version.folder for version in versions)
    return (f"{len(versions)} prompts are there for the task {name!r}: {places}. Keep one of them in the folder, and "
            "add the other while the server runs: PUT /v1/tasks.")  # fmt: skip
