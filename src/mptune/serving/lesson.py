"""An adaptation in a process of its own: rows of a task in, a version that is better on rows held out, or none.

A process, and not a thread of the server: a thread would share the interpreter's lock and the frozen model with the
answers, and each of its steps would keep them waiting. The price is a second copy of the model while it lasts. It takes
its orders from standard input, and ends when that ends: whatever becomes of the server, nothing of it stays behind.
"""

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

import torch

from mptune.answers.evaluation import answer_rows
from mptune.config import AdaptConfig, BackboneConfig, Config, EvaluateConfig
from mptune.errors import MptuneError
from mptune.model.backbone import Backbone
from mptune.model.loading import load_backbone
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.adaptation import adapt
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task

NICENESS = 19  # answers come first


class Lesson(Config):
    """What is to be learnt, from where, and where it goes."""

    backbone: BackboneConfig
    prompt: Path
    """Folder of the version that answers now: where learning begins, and what is to be surpassed."""
    task: Task
    train: tuple[dict[str, Any], ...]
    """Rows with their labels."""
    held: tuple[dict[str, Any], ...]
    """Rows with their labels that both versions are asked."""
    adapt: AdaptConfig
    evaluate: EvaluateConfig
    out: Path
    """Folder of the new version; made where it is better, whole or not at all."""


class Learnt(Config):
    """What came of a lesson."""

    before: int = 0
    """Right answers to the held-out rows of the version that answered."""
    after: int = 0
    """Those of the new one."""
    problem: str | None = None
    """Why there is none."""

    @property
    def better(self) -> bool:
        """Whether the new version is to answer from now on; of two that are alike, the old one stays."""
        return self.problem is None and self.after > self.before


def learn(lesson: Lesson, backbone: Backbone) -> Learnt:
    """Adapt a version to labelled rows, and save what came of it where it is better on those held out.

    Raises:
        MptuneError: rows that do not fit the task, or a training that cannot go on.
    """
    source = MultitaskPrompt.from_pretrained(lesson.prompt)
    rows = TaskRows.from_rows(
        list(lesson.train), lesson.task, test=list(lesson.held), hold_out=False, overlap="keep"
    )  # of one text all rows are on one side already
    # The only task's own vectors, exactly: a mean of one.
    start = lesson.task.name if len(source.tasks) > 1 else "mean-vectors"
    adapted = adapt(source, rows, backbone, lesson.adapt.model_copy(update={"initialise": start}))

    def right(prompt: MultitaskPrompt) -> int:
        number = prompt.task_number(lesson.task.name)
        collapsed = prompt.collapse()[number]
        examples, answers = answer_rows(collapsed, len(collapsed), rows, backbone, "test", lesson.evaluate)
        return sum(example.target == text for example, text in zip(examples, answers.texts, strict=True))

    learnt = Learnt(before=right(source), after=right(adapted))
    if learnt.better:
        adapted.save_pretrained(lesson.out)
    return learnt


def main() -> None:
    """Take a lesson from standard input, and write what came of it to standard output, a line of JSON each."""
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    with contextlib.suppress(AttributeError, OSError):  # not on every system
        os.nice(NICENESS)
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    try:
        lesson = Lesson.model_validate_json(line)
        learnt = learn(lesson, load_backbone(lesson.backbone))
    except MptuneError as error:
        learnt = Learnt(problem=str(error))
    with told:
        told.write(learnt.model_dump_json() + "\n")


def _end_with_the_server() -> None:
    """Wait for standard input to end, and end: the server has ended, in whatever way."""
    while os.read(0, 1):
        pass
    os._exit(1)
