"""A prompt's card: where it comes from, and the only model it fits."""

from pathlib import PurePath
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from mptune.config import LARGEST_SCORE, Config
from mptune.tasks.task import Split, Task

FORMAT = 1
LONGEST_TEXT = 1_000_000  # characters of a template or its like: a stranger's card costs no minutes
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.1, 10.0  # beyond them confidences are all one, or all alike
_OF_SCORE: dict[str, Any] = {"task": str, "split": str, "metric": str, "value": (int, float), "examples": int}


class Calibration(Config):
    """What held-out rows say of a task's confidences; see docs/decisions/0018-calibration.md."""

    temperature: float = Field(ge=LEAST_TEMPERATURE, le=MOST_TEMPERATURE)
    """What log-probabilities of label words are divided by; 1 leaves them as they are."""
    threshold: float | None = Field(None, ge=0, le=1)
    """The least confidence of an answer that is not abstained; None where every answer stands."""
    precision: float = Field(gt=0, lt=1)
    """The share of right answers that was asked for at and above the threshold."""
    rows: int = Field(ge=1)
    """Held-out rows that this was found on."""
    split: Split
    """Which rows they are."""

    def abstains(self, confidence: float | None) -> bool | None:
        """Return whether an answer of some confidence is abstained; None without a threshold, or a confidence."""
        return None if self.threshold is None or confidence is None else not confidence >= self.threshold  # nor is nan


class Card(Config):
    """Where a prompt comes from, and the only model it fits."""

    format: int = FORMAT
    stage: str
    """``teacher``, ``source``, ``target``, or ``imported``."""
    tasks: tuple[Task, ...]
    """One per pair of task vectors, in their order, with template and verbalizer."""
    backbone: str
    """Hugging Face id, ``embedded``, or a folder: its path here, and ``./name`` where the card is shared."""
    revision: str | None = None
    fingerprint: str
    """Hash of the backbone's embeddings and vocabulary."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The stage's configuration, resolved."""
    seeds: dict[str, Any] = Field(default_factory=dict)
    """The run's seed, the published seeds, and the training rows of each few-shot subset."""
    scores: tuple[dict[str, Any], ...] = ()
    kept: int | None = None
    """After how many of the run's steps this state stood; absent in cards of earlier versions."""
    stopped: int | None = None
    """The step whose numbers were not finite, where training ended; absent where it went on to its end."""
    data: dict[str, str] = Field(default_factory=dict)
    """Task name to hash of the rows that were used."""
    sources: tuple[str, ...] = ()
    """Source tasks that this prompt was distilled or adapted from."""
    versions: dict[str, str] = Field(default_factory=dict)
    calibration: dict[str, Calibration] | None = None
    """Task name to what `mptune calibrate` found. Absent where it has not run: earlier versions know no such field."""

    @field_validator("format")
    @classmethod
    def _is_known(cls, number: int) -> int:
        if number != FORMAT:
            raise ValueError(f"this mptune reads cards of format {FORMAT}; got {number}. Install a newer one")
        return number

    @field_validator("tasks", mode="before")
    @classmethod
    def _are_of_a_size(cls, tasks: Any) -> Any:
        """Refuse what would take long to be parsed, before it is."""
        for task in tasks if isinstance(tasks, list | tuple) else ():
            for field, text in task.items() if isinstance(task, dict) else ():
                if isinstance(text, str) and len(text) > LONGEST_TEXT:
                    raise ValueError(f"{field} wants at most {LONGEST_TEXT:,} characters; got {len(text):,}")
        return tasks

    @field_validator("scores")
    @classmethod
    def _are_scores(cls, scores: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for score in scores:
            for field, kind in _OF_SCORE.items():
                if not isinstance(score.get(field), kind) or isinstance(score[field], bool):
                    raise ValueError(f"{field} of a score is missing or of a wrong type; got {score.get(field)!r:.40}")
            if not abs(score["value"]) < LARGEST_SCORE:
                raise ValueError(f"value of a score wants a number of its metric's scale; got {score['value']!r:.40}")
        return scores

    @model_validator(mode="after")
    def _calibrations_are_of_its_tasks(self) -> Self:
        ranked = [task.name for task in self.tasks if task.verbalizer]
        for name in self.calibration or ():
            if name not in ranked:
                raise ValueError(f"calibration wants tasks of the card that have label words; got {name!r:.40}")
        return self

    def calibration_of(self, task: str) -> Calibration | None:
        """Return what was found for a task; None where nothing was."""
        return (self.calibration or {}).get(task)

    @property
    def backbone_at(self) -> str:
        """The backbone with its revision, where one is known."""
        return f"{self.backbone}@{self.revision}" if self.revision else self.backbone

    @property
    def kept_start(self) -> bool:
        """Whether training did not help: the state before its first step was the best on validation rows."""
        steps = self.config.get("steps", 0)
        return self.kept == 0 and isinstance(steps, int) and steps > 0

    @property
    def untrained(self) -> bool:
        """Whether it was to take no step, and is its own start."""
        return self.config.get("steps") == 0

    def of_one(self, task: Task) -> "Card":
        """Return the card without what it says of other tasks."""
        scores = tuple(score for score in self.scores if score.get("task") == task.name)
        data = {name: digest for name, digest in self.data.items() if name == task.name}
        own = self.calibration_of(task.name)
        found = {"scores": scores, "data": data, "calibration": {task.name: own} if own else None}
        return self.model_copy(update={"tasks": (task,), **found})

    def shareable(self) -> "Card":
        """Return the card as it leaves this machine: of a local backbone only the folder's name, marked as such."""
        return self.model_copy(update={"backbone": public_name(self.backbone)})


def public_name(backbone: str) -> str:
    """Return a hub id as it is, and of a local folder ``./`` and its name: a card is made to be shared.

    The mark says that it was a folder: no hub id begins so, and it is never looked up there.
    """
    path = PurePath(backbone)
    local = path.is_absolute() or backbone.startswith((".", "~")) or len(path.parts) > 2
    return f"./{path.name}" if local else backbone
