"""What a person or a log sees of long work: bars with the time left on a terminal, JSON lines elsewhere."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Steps:
    """The progress of one training: steps taken, and the latest values."""

    def __init__(self, title: str, total: int, bar: Progress | None) -> None:
        self._title, self._total, self._bar = title, total, bar
        self._task = bar.add_task(title, total=total, values="") if bar else None
        self._start = time.monotonic()

    def show(self, step: int, **values: Any) -> None:
        """Move to a step; ``values`` are what is worth seeing of it."""
        if self._bar is not None and self._task is not None:
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
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield Steps(title, total, None)
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
