"""The labelled rows of a task: a journal of JSON lines, where a row stands before it is said to be kept."""

import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mptune.errors import ArtifactError, MptuneError, UsageError
from mptune.files import json_lines, open_new, write_file
from mptune.tasks.splits import normal
from mptune.tasks.task import Task

HELD_OUT = 1 / 5  # of the texts of each class
MOST_LABELLED = 100_000  # annotations of a task
OUTCOMES = 10  # adaptations that are remembered; the file has all


@dataclass(frozen=True)
class LabelledRow:
    """A row that somebody has labelled."""

    row: Mapping[str, Any]  # the fields of its task's template
    label: str  # the verbalizer's key
    held: bool  # kept to compare versions on, and never learnt from

    @property
    def text(self) -> str:
        """By which equal rows are known."""
        return normal(json.dumps(self.row, sort_keys=True, ensure_ascii=False))


@dataclass(frozen=True)
class Sides:
    """The rows to learn from, and those to compare two versions on."""

    train: tuple[LabelledRow, ...]
    held: tuple[LabelledRow, ...]

    @property
    def lacks(self) -> str | None:
        """What there is too little of to adapt; None where there is enough."""
        classes = Counter(each.label for each in (*self.train, *self.held))
        if sum(count >= 2 for count in classes.values()) < 2:
            got = ", ".join(f"{count} of {label}" for label, count in sorted(classes.items())) or "none"
            return f"an adaptation wants two labels with two rows each or more; got {got}"
        if len({each.label for each in self.train}) < 2 or not self.held:
            return "after deletions no row of a label is left on one side; label a few more"
        return None


class Labels:
    """The labelled rows of one task, by the annotation that labelled them. Safe between threads.

    A text is put on its side, to learn from or held out, when it is first labelled, and stays there: a version that has
    learnt from a row would otherwise be compared on it later. The side goes by the class: its second text is held out,
    and then as many as make up a fifth.
    """

    def __init__(self, file: Path) -> None:
        """Read what a journal holds; a line that a killed process had begun is cut off.

        Raises:
            ArtifactError: it is damaged elsewhere.
        """
        self._file = file
        self._lock = threading.Lock()
        self._rows: dict[str, LabelledRow] = {}
        self._sides: dict[str, bool] = {}  # of every text that was ever labelled
        self._new = self._new_at_last = 0  # labels, in all and when the last adaptation began
        self._outcomes: list[dict[str, Any]] = []
        if file.is_file():
            self._replay()

    def put(self, annotation: str, row: Mapping[str, Any], label: str) -> bool:
        """Keep a labelled row, in place of what the annotation said before; return whether it is a new one.

        Raises:
            UsageError: it cannot be written as text, or there are too many.
            MptuneError: the disk takes it not.
        """
        with self._lock:
            known = self._rows.get(annotation)
            if known is not None and (known.row, known.label) == (row, label):
                return False
            if known is None and len(self._rows) >= MOST_LABELLED:
                raise UsageError(f"a task has at most {MOST_LABELLED:,} annotations; delete some")
            found = LabelledRow(dict(row), label, False)
            found = LabelledRow(found.row, label, self._side(annotation, found))
            self._append({"id": annotation, "row": found.row, "label": label, "held": found.held})
            self._set(annotation, found)
            return known is None

    def remove(self, annotation: str) -> bool:
        """Forget what an annotation said; return whether it had said something."""
        with self._lock:
            if annotation not in self._rows:
                return False
            self._append({"id": annotation, "gone": True})
            del self._rows[annotation]
            return True

    def begin(self) -> int:
        """Count new labels from here on; return how many there were ever."""
        with self._lock:
            self._new_at_last = self._new
            return self._new

    def finish(self, outcome: Mapping[str, Any], labels: int) -> None:
        """Keep what came of an adaptation that began at so many labels."""
        with self._lock:
            self._append({"outcome": dict(outcome), "labels": labels})
            self._outcomes.append(dict(outcome))

    @property
    def since(self) -> int:
        """New labels since the last adaptation began."""
        with self._lock:
            return self._new - self._new_at_last

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        """What came of the last adaptations, the latest last."""
        with self._lock:
            return self._outcomes[-OUTCOMES:]

    def divided(self, task: Task) -> Sides:
        """Return the rows that fit a task as it is now, on their sides."""
        with self._lock:
            rows = [each for each in self._rows.values() if each.label in task.verbalizer]
        fitting = [each for each in rows if all(field in each.row for field in task.text_fields)]
        return Sides(tuple(e for e in fitting if not e.held), tuple(e for e in fitting if e.held))

    def _side(self, annotation: str, row: LabelledRow) -> bool:
        known = self._sides.get(row.text)
        if known is not None:
            return known
        texts = {each.text for name, each in self._rows.items() if each.label == row.label and name != annotation}
        count = len(texts) + 1
        wanted = max(1, round(HELD_OUT * count)) if count > 1 else 0
        return sum(self._sides[text] for text in texts) < wanted

    def _set(self, annotation: str, row: LabelledRow) -> None:
        self._new += annotation not in self._rows
        self._rows[annotation] = row
        self._sides.setdefault(row.text, row.held)

    # -- the file -----------------------------------------------------------------------------------------------------

    def _append(self, values: Mapping[str, Any]) -> None:
        """Add a line and wait until it is on the disk; where that fails, nothing of it stays."""
        try:
            line = json.dumps(values, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except ValueError:  # half a character, or a number that is none
            raise UsageError(
                "a field holds what is no text: half a character, or a number that is not finite"
            ) from None
        try:
            if not self._file.exists():
                self._file.parent.mkdir(mode=0o700, exist_ok=True)  # texts of people, for whoever runs the server
                write_file(self._file, b"")
            with open_new(self._file, append=True) as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    left = memoryview(line)
                    while left:  # not through the file's buffer, which would write the rest when it is closed
                        left = left[os.write(file.fileno(), left) :]
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), size)
                    raise
        except OSError as error:
            raise MptuneError(f"the label cannot be kept: {error.strerror}") from None

    def _replay(self) -> None:
        content = self._file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._file, whole)
        number = 0
        try:
            for line in json_lines(content[:whole].decode()):
                number = line.number
                if line.error is not None:
                    raise line.error
                self._read(line.value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{self._file} is damaged in line {number} ({error}); remove the line") from None

    def _read(self, values: Mapping[str, Any]) -> None:
        if "outcome" in values:
            self._outcomes.append(dict(values["outcome"]))
            self._new_at_last = int(values["labels"])
        elif "gone" in values:
            del self._rows[values["id"]]
        else:
            found = LabelledRow(dict(values["row"]), str(values["label"]), bool(values["held"]))
            self._set(str(values["id"]), found)
