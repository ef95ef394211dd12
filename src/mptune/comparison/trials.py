"""The runs of a comparison: which there are, which are still to be done, and where each has its files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from mptune.comparison.loaded import Contender, Loaded
from mptune.comparison.results import FROM, Key, Line
from mptune.errors import UsageError
from mptune.tasks.data import TaskRows


@dataclass(frozen=True)
class Trial:
    """One run: a contender, its targets (one, or all of them as a group), a number of shots and a seed."""

    contender: Contender
    targets: tuple[TaskRows, ...]
    shots: int | None  # 0 where no examples are taken, None for all
    seed: int
    source: str | None = None  # of which the own prompt is asked, where the method asks each source task's
    lr: float | None = None  # a rate that is tried, in place of the section's
    out: Path | None = None  # folder of the run's files; in memory only where None

    @property
    def name(self) -> str:
        """What its lines call its method."""
        return self.contender.name if self.source is None else f"{FROM}{self.source}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of its targets."""
        return tuple(rows.name for rows in self.targets)

    @property
    def title(self) -> str:
        """The run in words."""
        few = "" if self.shots == 0 else f", {'all' if self.shots is None else self.shots} shots, seed {self.seed}"
        return f"{self.name}, {'+'.join(self.tasks)}{few}"

    @property
    def keys(self) -> list[Key]:
        """What names the lines of this run, one for each of its tasks."""
        return [(self.name, task, self.shots, self.seed) for task in self.tasks]

    @property
    def config(self) -> Any:
        """The configuration of its training, with its shots, its seed and the rate that is tried."""
        own: dict[str, Any] = {"shots": self.shots, "seed": self.seed}
        if self.lr is not None:
            own[self.contender.method.rate] = self.lr
        return self.contender.trainings[self.tasks].model_copy(update=own)

    def at(self, lr: float | None, folder: Path) -> Self:
        """Return the run with a learning rate, whose files stand in a comparison's folder."""
        return replace(self, lr=lr, out=place(folder, self.name, self.tasks, self.shots, self.seed, lr))


def place(
    folder: Path, method: str, tasks: Sequence[str], shots: int | None, seed: int, lr: float | None = None
) -> Path:
    """Return the folder of a run's files."""
    name = tasks[0] if len(tasks) == 1 else "group"
    tried = "" if lr is None else f"-{lr:.12g}"
    return folder / "targets" / method / f"{name}-{'all' if shots is None else shots}-{seed}{tried}"


def chosen_trials(loaded: Loaded, only: Sequence[str] = ()) -> list[Trial]:
    """Return the runs of a recipe, those that do not vary with shots and seeds once.

    Args:
        only: methods and targets to restrict it to; none of either kind means all of it.

    Raises:
        UsageError: ``only`` names what the recipe does not have, or leaves nothing.
    """
    methods, targets = loaded.recipe.methods, [rows.name for rows in loaded.targets]
    unknown = [name for name in only if name not in (*methods, *targets)]
    if unknown:
        raise UsageError(
            f"--only wants methods and targets of the recipe; got {', '.join(unknown)}. "
            f"Its methods: {', '.join(methods)}. Its targets: {', '.join(targets)}."
        )
    chosen_methods = [m for m in methods if m in only] or methods
    chosen_targets = [rows for rows in loaded.targets if rows.name in only] or loaded.targets
    trials = [trial for method in chosen_methods for trial in _trials(loaded, method, chosen_targets)]
    if not trials:
        asked = ", ".join(only) or "the recipe"
        raise UsageError(f"{asked} leaves no run: teacher wants a target that is a source task too")
    return sorted(trials, key=lambda trial: trial.seed)  # what is stopped early has run every method alike


def _trials(loaded: Loaded, name: str, targets: Sequence[TaskRows]) -> Iterator[Trial]:
    contender, sources = loaded.contenders[name], [rows.name for rows in loaded.sources]
    for shots in loaded.recipe.shots_of(name):
        for seed in loaded.recipe.seeds_of(name):
            runs_on = contender.method.runs_on
            if runs_on == "all targets":  # the group is what it is, whatever part of it is asked for
                yield Trial(contender, loaded.targets, shots, seed)
            elif runs_on == "a source task and a target":
                yield from (Trial(contender, (rows,), shots, seed, source) for source in sources for rows in targets)
            else:
                known = [rows for rows in targets if runs_on == "a target" or rows.name in sources]
                yield from (Trial(contender, (rows,), shots, seed) for rows in known)


def unfinished(trials: Sequence[Trial], lines: Sequence[Line]) -> list[Trial]:
    """Return the runs of which a line is missing."""
    done = {line.key for line in lines}
    return [trial for trial in trials if not done.issuperset(trial.keys)]


def rows_needed(loaded: Loaded, trials: Sequence[Trial]) -> tuple[Sequence[TaskRows], Sequence[TaskRows]]:
    """Return the source and the target tasks whose rows some runs read."""
    begins_with = {trial.contender.method.begins_with for trial in trials}
    chosen = {name for trial in trials for name in trial.tasks}
    sources = loaded.sources if begins_with & {"teachers", "multitask prompt"} else ()
    return sources, [rows for rows in loaded.targets if rows.name in chosen]
