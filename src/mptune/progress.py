"""How far long work is: bars with the time left on a terminal and in a notebook, JSON lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mptune.terminal import say, standard_error, standard_output, tell, visible

if TYPE_CHECKING:
    from rich.live import Live

FIRST_STEPS = 5  # after which the time of the others is told
ROOMY = 70  # columns of a terminal that shows more than the name, the steps and the time left
SHORT, LONG = 60.0, 600.0  # seconds to go: below nothing is said elsewhere, beyond what is cheaper too


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

    def __init__(self, name: str, live: "Live | None") -> None:
        self._name, self._live = visible(name), live
        self._standing = Standing(0, 1, "", None)

    def show(self, standing: Standing) -> None:
        """Say how far the comparison is."""
        self._standing = standing
        if self._live is not None:
            self._draw(self._live, "")
        elif standing.title:
            line: dict[str, Any] = {"bench": self._name, "done": standing.done, "of": standing.total}
            if standing.seconds_left is not None:
                line["seconds_left"] = round(standing.seconds_left)
            tell({**line, "run": standing.title})

    def step(self, step: int, total: int) -> None:
        """Say how far the present run is."""
        if self._live is not None:
            self._draw(self._live, f"step {step}/{total}")

    def _draw(self, live: "Live", step: str) -> None:
        from rich import box
        from rich.console import Group
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Table
        from rich.text import Text

        now = self._standing
        bar = Progress(TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
                       TextColumn("{task.fields[left]}"), console=live.console)  # fmt: skip
        left = "" if now.seconds_left is None else f"about {_duration(now.seconds_left)} left"
        bar.add_task(self._name, total=now.total, completed=now.done, left=left)
        head, *rows = now.table or [[]]
        results = Table(*map(escape, head), box=box.SIMPLE, show_header=bool(rows))
        for row in rows:
            results.add_row(*(Text(visible(cell)) for cell in row))
        title = Text(visible(f"{now.title}  {step}".strip()))
        live.update(Group(*([results] if rows else []), bar.get_renderable(), title))


_BOARD: ContextVar[Board | None] = ContextVar("board", default=None)


@contextmanager
def board(name: str) -> Iterator[Board]:
    """Show a comparison for the time of a block; trainings within it are a line of it, not bars of their own."""
    from rich.live import Live

    console = standard_error()
    with Live(console=console, transient=True) if console.is_terminal else nullcontext() as live:
        shown = Board(name, live)
        token = _BOARD.set(shown)
        try:
            yield shown
        finally:
            _BOARD.reset(token)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


Draw = Callable[[str, int, str], None]  # a title, the steps so far, the latest values


class Bar:
    """One bar over all trainings of a command that follow each other, and how long they will take."""

    def __init__(self, trainings: int = 1) -> None:
        self._trainings, self._done = trainings, 0
        self._draw: Draw | None = None
        self._stack = ExitStack()

    @property
    def drawn(self) -> bool:
        """Whether somebody sees it."""
        return self._draw is not None

    @property
    def to_come(self) -> int:
        """How many trainings follow the present one."""
        return max(self._trainings - self._done - 1, 0)

    def begin(self, total: int, start: int) -> None:
        """Show the bar, where somebody looks."""
        if self._draw is None:
            self._draw = self._stack.enter_context(_drawing(total * self._trainings, start))

    def show(self, title: str, step: int, total: int, text: str) -> None:
        """Move to a step of the present training."""
        if self._draw is not None:
            numbered = f"{title} ({self._done + 1} of {self._trainings})" if self._trainings > 1 else title
            self._draw(visible(numbered), self._done * total + step, visible(text))

    def end(self) -> None:
        """Count the present training as done."""
        self._done += 1

    def close(self) -> None:
        """Leave the bar as it is."""
        self._stack.close()
        self._draw = None


_BAR: ContextVar[Bar | None] = ContextVar("bar", default=None)


@contextmanager
def trainings(count: int) -> Iterator[None]:
    """Show the trainings within a block, of about as many steps each, as one."""
    bar = Bar(count)
    token = _BAR.set(bar)
    try:
        yield
    finally:
        _BAR.reset(token)
        bar.close()


@contextmanager
def _drawing(total: int, start: int) -> Iterator[Draw | None]:
    """Draw a bar for the time of a block: rich's on a terminal, tqdm's in a notebook; elsewhere nothing."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = standard_error()
    if in_notebook():
        from tqdm import tqdm

        with tqdm(total=total, initial=start, file=standard_output(), dynamic_ncols=True) as notebook_bar:

            def advance(title: str, step: int, text: str) -> None:
                notebook_bar.set_description_str(title, refresh=False)
                if text:
                    notebook_bar.set_postfix_str(text, refresh=False)
                notebook_bar.update(step - notebook_bar.n)

            yield advance
        return
    if not console.is_terminal:
        yield None
        return
    name, steps, left = TextColumn("{task.description}", markup=False), MofNCompleteColumn(), TimeRemainingColumn()
    values = TextColumn("{task.fields[values]}", markup=False)
    wide = console.width >= ROOMY
    to_go = TextColumn("left")  # what the time is
    columns = (name, BarColumn(bar_width=24), steps, left, to_go, values) if wide else (name, steps, left, to_go)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, completed=start, values="")

        def move(title: str, step: int, text: str) -> None:
            fields: dict[str, Any] = {"values": text} if text else {}
            bar.update(task, description=title, completed=step, **fields)

        yield move


def in_notebook() -> bool:
    """Return whether this is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def goes_on(title: str, at: int, total: int, what: str = "step") -> None:
    """Say that work goes on where it was interrupted; of a comparison's many trainings that is no news."""
    if at and _BOARD.get() is None:
        with suppress(OSError, ValueError):
            say(f"{title} goes on at {what} {at} of {total}", err=True)


class StepProgress:
    """The progress of one training: steps taken, and the latest values."""

    def __init__(self, title: str, total: int, start: int, bar: Bar | None, within: Board | None, cheaper: str) -> None:
        self._title, self._total, self._start, self._bar, self._within = title, total, start, bar, within
        self._cheaper = cheaper
        self._begun = time.monotonic()
        self._first: tuple[float, int] | None = None  # when which step was seen first: it warms up what others use
        self._told = False

    @property
    def drawn(self) -> bool:
        """Whether somebody sees a bar."""
        return self._bar is not None and self._bar.drawn

    def show(self, step: int, **values: Any) -> None:
        """Move to a step; ``values`` are what is worth seeing of it."""
        if self._within is not None:
            self._within.step(step, self._total)
            return
        if self._bar is None:
            return
        if self._bar.drawn:
            text = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
            self._bar.show(self._title, step, self._total, text)
        elif values:
            tell({"run": self._title, "step": step, "of": self._total, "seconds": self._seconds, **values})
        self._expect(step)

    @property
    def _seconds(self) -> float:
        return round(time.monotonic() - self._begun, 1)

    def _expect(self, step: int) -> None:
        """Say once, after the first steps, how long it will take, and what is cheaper where that is long."""
        now = time.monotonic()
        if self._first is None and step > self._start:
            self._first = now, step
        if self._told or self._bar is None or self._first is None or step - self._first[1] < FIRST_STEPS:
            return
        self._told = True
        begun, first = self._first
        left = (now - begun) / (step - first) * (self._total - step + self._total * self._bar.to_come)
        cheaper = self._cheaper if left > LONG else ""
        if self._bar.drawn and cheaper:
            say(f"{self._title}: about {_duration(left)} to go. Cheaper: {cheaper}", err=True)
        elif not self._bar.drawn and left > SHORT:
            more = {"cheaper": cheaper} if cheaper else {}
            tell({"run": self._title, "step": step, "of": self._total, "seconds_left": round(left), **more})


@contextmanager
def step_progress(
    title: str, total: int, start: int = 0, *, shown: bool = True, cheaper: str = ""
) -> Iterator[StepProgress]:
    """Show the progress of one training for the time of a block.

    Args:
        shown: whether anybody is to see it.
        cheaper: what would take less time, said where it takes long.
    """
    within, outer = _BOARD.get(), _BAR.get()
    if within is not None or not shown:
        yield StepProgress(title, total, start, None, within if shown else None, cheaper)
        return
    bar = outer or Bar()
    bar.begin(total, start)
    progress = StepProgress(title, total, start, bar, None, cheaper)
    progress.show(start)
    try:
        yield progress
    finally:
        if outer is None:
            bar.close()
    bar.end()
