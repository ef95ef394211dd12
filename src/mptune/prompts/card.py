"""A prompt's card: where it comes from, and the only model it fits."""

from pathlib import PurePath
from typing import Any

from pydantic import Field

from mptune.config import Config
from mptune.tasks.task import Task


class Card(Config):
    """Where a prompt comes from, and the only model it fits."""

    format: int = 1
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
    data: dict[str, str] = Field(default_factory=dict)
    """Task name to hash of the rows that were used."""
    sources: tuple[str, ...] = ()
    """Source tasks that this prompt was distilled or adapted from."""
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def backbone_at(self) -> str:
        """The backbone with its revision, where one is known."""
        return f"{self.backbone}@{self.revision}" if self.revision else self.backbone

    @property
    def kept_start(self) -> bool:
        """Whether training did not help: the state before its first step was the best on validation rows."""
        return self.kept == 0 and self.config.get("steps", 0) > 0

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
