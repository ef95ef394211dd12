"""Adaptations on the rows labelled so far, one at a time, in the background; what is better takes over."""

import contextlib
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mptune
from mptune.config import AdaptConfig, EvaluateConfig
from mptune.errors import MptuneError
from mptune.serving.labelled import Labels, Sides
from mptune.serving.lesson import Learnt, Lesson
from mptune.serving.settings import ServeConfig
from mptune.serving.store import Ready, Store

logger = logging.getLogger(__name__)

LABELLED, LEARNT = ".labelled", ".learnt"  # in the folder of prompts: journals; versions that were learnt from them
# Without the folder in which the server was started among the places of modules, where anybody's file could stand.
CHILD = "import sys; sys.path.append(sys.argv[1]); from mptune.serving.lesson import main; main()"
LONGEST_PROBLEM = 500  # characters


class Learning:
    """The labelled rows of all tasks, and the one process that learns from them."""

    def __init__(self, store: Store, config: ServeConfig) -> None:
        self._store, self._config = store, config
        self._wake = threading.Condition()
        self._labels: dict[str, Labels] = {}
        self._wanted: dict[str, None] = {}  # tasks, the first that asked first
        self._running: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None

    def labels(self, task: str) -> Labels:
        """Return the labelled rows of a task.

        Raises:
            ArtifactError: their journal is damaged.
        """
        with self._wake:
            if task not in self._labels:
                self._labels[task] = Labels(self._store.folder / LABELLED / f"{task}.jsonl")
            return self._labels[task]

    def ask(self, task: str) -> None:
        """Adapt a task as soon as no other is being adapted; once, however often it is asked meanwhile."""
        with self._wake:
            self._wanted[task] = None
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="learning", daemon=True)
                self._thread.start()
            self._wake.notify()

    def noticed(self, ready: Ready) -> bool:
        """Adapt a task if so many labels are new; return whether it will be."""
        labels, every = self.labels(ready.name), self._config.train_every
        with self._wake:  # of labels that come at once, one finds that there are enough
            if not every or labels.since < every or labels.divided(ready.task).lacks:
                return False
            labels.begin()
            self.ask(ready.name)
            return True

    def state(self, task: str) -> str:
        """Return whether a task is being adapted, waits for it, or neither."""
        with self._wake:
            return "running" if self._running == task else "waiting" if task in self._wanted else "idle"

    def stop(self) -> None:
        """Adapt no more, and end what is under way. What was labelled is kept."""
        with self._wake:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(self._config.timeout)

    # -- on a thread of its own ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._wanted or self._stopped)
                if self._stopped:
                    return
                self._running = next(iter(self._wanted))
                del self._wanted[self._running]
            try:
                self._adapt(self._running)
            except MptuneError as error:  # it is served no longer, or its journal cannot be read or written
                logger.warning("%s is not adapted: %s", self._running, error)
            except Exception:  # the next task is adapted all the same
                logger.exception("the adaptation of %s failed", self._running)
            finally:
                with self._wake:
                    self._running = None

    def _adapt(self, name: str) -> None:
        labels = self.labels(name)
        ready = self._store.ready(name)
        sides = labels.divided(ready.task)
        if sides.lacks:  # labels were deleted since it was asked for
            return
        count, began = labels.begin(), time.monotonic()
        outcome: dict[str, Any] = {
            "began": datetime.now(UTC).isoformat(timespec="seconds"), "from": ready.version.folder,
            "rows": len(sides.train), "held_out": len(sides.held), "before": None, "after": None, "version": None,
            "taken_over": False, "problem": None,
        }  # fmt: skip
        place = self._place(name)
        try:
            learnt = self._taught(self._lesson(ready, sides, place))
        except OSError as error:
            learnt = Learnt(problem=str(error))
        if self._stopped:
            shutil.rmtree(place, ignore_errors=True)
            return
        if learnt.problem is None:
            share = 100 / len(sides.held)
            outcome |= {"before": round(learnt.before * share, 1), "after": round(learnt.after * share, 1)}
        if learnt.better:
            learnt = self._taken_over(ready, place, learnt)
            if learnt.better:
                outcome |= {"version": str(place.relative_to(self._store.folder)), "taken_over": True}
        outcome |= {"problem": learnt.problem, "seconds": round(time.monotonic() - began, 1)}
        labels.finish(outcome, count)
        _log(name, outcome)

    def _taken_over(self, ready: Ready, place: Path, learnt: Learnt) -> Learnt:
        """Serve a new version in place of the one it was compared with; not where that answers no longer."""
        try:
            self._store.put(str(place.relative_to(self._store.folder)), ready.name, over=ready.version)
        except MptuneError as error:
            shutil.rmtree(place, ignore_errors=True)
            return learnt.model_copy(update={"problem": str(error)})
        return learnt

    def _place(self, name: str) -> Path:
        """Return the folder of a task's next version; what killed processes had begun to write there goes."""
        folder = self._store.folder / LEARNT / name
        for scratch in folder.glob(".*"):
            shutil.rmtree(scratch, ignore_errors=True)
        taken = [int(each.name) for each in folder.glob("*") if each.name.isdecimal()]
        return folder / str(max(taken, default=0) + 1)

    def _lesson(self, ready: Ready, sides: Sides, place: Path) -> Lesson:
        config, task = self._config, ready.task
        train, held = (
            tuple({**each.row, task.label: each.label} for each in side) for side in (sides.train, sides.held)
        )
        lengths = {"max_input_tokens": config.max_input_tokens, "max_target_tokens": config.max_target_tokens}
        adapt: AdaptConfig = config.adapt.model_copy(update=lengths)
        return Lesson(
            backbone=self._store.backbone.config, prompt=self._store.folder / ready.version.folder, task=task,
            train=train, held=held, adapt=adapt, evaluate=EvaluateConfig(**lengths), out=place,
        )  # fmt: skip

    def _taught(self, lesson: Lesson) -> Learnt:
        """Return what came of a lesson, in a process of its own."""
        root = str(Path(mptune.__file__).parents[1])
        told = b""
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-P", "-c", CHILD, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
                start_new_session=True,
            )  # fmt: skip
            with contextlib.suppress(BrokenPipeError), process, self._under_way(process):
                assert process.stdin is not None
                assert process.stdout is not None
                # Standard input stays open: when it ends, the process does.
                process.stdin.write(lesson.model_dump_json().encode() + b"\n")
                process.stdin.flush()
                told = process.stdout.read()
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
        try:
            return Learnt.model_validate_json(told)
        except ValueError:
            return Learnt(problem=f"its process ended with {process.returncode}: {last}"[:LONGEST_PROBLEM])

    @contextlib.contextmanager
    def _under_way(self, process: "subprocess.Popen[bytes]") -> Iterator[None]:
        """Let `stop` find a process while it lasts, and leave none behind."""
        with self._wake:
            self._process = process
            if self._stopped:
                process.kill()
        try:
            yield
        except BaseException:
            process.kill()
            raise
        finally:
            with self._wake:
                self._process = None


def _log(name: str, outcome: Mapping[str, Any]) -> None:
    """Say what came of an adaptation; of a change of what is served, even where requests are not logged."""
    told = f"{name}: learnt from {outcome['rows']} labelled rows"
    if outcome["before"] is not None:
        told += (
            f"; of {outcome['held_out']} held out {outcome['before']:g} % right before, {outcome['after']:g} % after"
        )
    if outcome["problem"]:
        logger.warning("%s; %s answers still: %s", told, outcome["from"], outcome["problem"])
    elif outcome["taken_over"]:
        logger.warning("%s; %s answers from now on", told, outcome["version"])
    else:
        logger.info("%s; %s answers still", told, outcome["from"])
