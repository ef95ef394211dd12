"""What a person or a log sees of long work: bars with the time left on a terminal, JSON lines elsewhere."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Standing:
    """How far a comparison is."""

    done: int  # runs
    total: int  # runs
    title: str  # what begins; empty at the end
    seconds_left: float | None  # as far as finished runs tell
    table: Sequence[Sequence[str]] = ()  # the results so far: a head, then rows


class Board:
    """What is seen of many runs: the table so far, and one bar over all of them with the time left."""

    def __init__(self, name: str, live: Live | None) -> None:
        self._name, self._live = name, live
        self._standing = Standing(0, 1, "", None)

    def show(self, standing: Standing) -> None:
        """Say how far the comparison is."""
        self._standing = standing
        if self._live is not None:
            self._draw("")
        elif standing.title:
            line: dict[str, Any] = {"bench": self._name, "done": standing.done, "of": standing.total}
            if standing.seconds_left is not None:
                line["seconds_left"] = round(standing.seconds_left)
            print(json.dumps({**line, "run": standing.title}), file=sys.stderr)  # noqa: T201 - as below

    def step(self, step: int, total: int) -> None:
        """Say how far the present run is."""
        if self._live is not None:
            self._draw(f"step {step}/{total}")

    def _draw(self, step: str) -> None:
        assert self._live is not None
        now = self._standing
        bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
                       TextColumn("{task.fields[left]}"), console=self._live.console)  # fmt: skip
        left = "" if now.seconds_left is None else f"about {_duration(now.seconds_left)} left"
        bar.add_task(self._name, total=now.total, completed=now.done, left=left)
        head, *rows = now.table or [[]]
        table = Table(*map(escape, head), box=box.SIMPLE, show_header=bool(rows))
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._live.update(Group(*([table] if rows else []), bar.get_renderable(), Text(f"{now.title}  {step}".strip())))


_BOARD: ContextVar[Board | None] = ContextVar("board", default=None)


@contextmanager
def board(name: str) -> Iterator[Board]:
    """Show a comparison for the time of a block; trainings within it are a line of it, not bars of their own."""
    console = Console(stderr=True)
    with Live(console=console, transient=True) if console.is_terminal else nullcontext() as live:
        made = Board(name, live)
        token = _BOARD.set(made)
        try:
            yield made
        finally:
            _BOARD.reset(token)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Steps:
    """The progress of one training: steps taken, and the latest values."""

    def __init__(self, title: str, total: int, bar: Progress | None, within: Board | None = None) -> None:
        self._title, self._total, self._bar, self._within = title, total, bar, within
        self._task = bar.add_task(title, total=total, values="") if bar else None
        self._start = time.monotonic()

    def show(self, step: int, **values: Any) -> None:
        """Move to a step; ``values`` are what is worth seeing of it."""
        if self._within is not None:
            self._within.step(step, self._total)
        elif self._bar is not None and self._task is not None:
            text = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
            fields: dict[str, Any] = {"values": text} if text else {}
            self._bar.update(self._task, completed=step, **fields)
        elif values:
            seconds = round(time.monotonic() - self._start, 1)
            line = {"run": self._title, "step": step, "of": self._total, "seconds": seconds, **values}
            print(json.dumps(line), file=sys.stderr)  # noqa: T201 - the log is this module's output


@contextmanager
def steps(title: str, total: int, start: int = 0, *, shown: bool = True) -> Iterator[Steps]:
    """Show the progress of one training for the time of a block."""
    console, within = Console(stderr=True), _BOARD.get()
    if within is not None or not shown or not console.is_terminal:
        yield Steps(title, total, None, within)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
        )
        with Progress(*columns, console=console) as bar:
            progress = Steps(title, total, bar)
            progress.show(start)
            yield progress
