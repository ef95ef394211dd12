"""A prompt is a folder: tensors, and in the same file's header the card that says whose they are.

safetensors only; nothing here reads or writes a pickle. A folder appears whole, by one rename, or not at all.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mptune.backbone import FrozenBackbone
from mptune.config import BackboneConfig, Config
from mptune.errors import ArtifactError, BackboneMismatch, UnknownNameError
from mptune.files import write_folder
from mptune.modelcard import model_card, public_name
from mptune.prompts import TaskVectors, compose
from mptune.shapes import check_shape
from mptune.tasks import Task

TENSORS = "prompt.safetensors"
CONFIG = "config.json"  # the resolved configuration with this machine's paths; stays here when a prompt is shared


class Card(Config):
    """Where a prompt comes from, and the only model it fits."""

    format: int = 1
    stage: str
    """``teacher``, ``source``, ``target``, or ``imported``."""
    tasks: tuple[Task, ...]
    """One per pair of task vectors, in their order, with template and verbalizer."""
    backbone: str
    """Hugging Face id or folder, or ``embedded``."""
    revision: str | None = None
    fingerprint: str
    """Hash of the backbone's embeddings and vocabulary."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The stage's configuration, resolved."""
    seeds: dict[str, Any] = Field(default_factory=dict)
    """The run's seed, the published seeds, and the training rows of each few-shot subset."""
    scores: tuple[dict[str, Any], ...] = ()
    data: dict[str, str] = Field(default_factory=dict)
    """Task name to hash of the rows that were used."""
    sources: tuple[str, ...] = ()
    """Source tasks that this prompt was distilled or adapted from."""
    versions: dict[str, str] = Field(default_factory=dict)


class MultitaskPrompt(nn.Module):
    """One shared prompt and K pairs of task vectors: all that training learns.

    A teacher, or a plainly tuned prompt, is the case of one task whose vectors stay at one. A few methods are those of
    transformers: `from_pretrained`, `save_pretrained`, `push_to_hub`.
    """

    def __init__(self, shared: Tensor, task_vectors: TaskVectors, card: Card) -> None:
        """Wrap the tensors of a prompt.

        Args:
            shared: P* [L, D]
            task_vectors: u [K, L, R] and v [K, R, D]
            card: its tasks are the K tasks, in order.

        Raises:
            ShapeError: the tensors do not fit each other or the card.
        """
        super().__init__()
        check_shape("shared", shared, "L D")
        length, width = shared.shape
        rank = task_vectors.u.shape[-1]
        check_shape("u", task_vectors.u, "K L R", K=len(card.tasks), L=length)
        check_shape("v", task_vectors.v, "K R D", K=len(card.tasks), R=rank, D=width)
        self.card = card
        self.shared = nn.Parameter(shared.detach().float().clone())  # P* [L, D]
        # One parameter per task: an optimizer passes over those without a gradient, so that a task absent from a batch
        # keeps its vectors. In one stacked parameter, Adam's momentum would move them.
        self.u = nn.ParameterList(nn.Parameter(u.detach().float().clone()) for u in task_vectors.u)  # K of [L, R]
        self.v = nn.ParameterList(nn.Parameter(v.detach().float().clone()) for v in task_vectors.v)  # K of [R, D]

    def forward(self, task_ids: Tensor) -> Tensor:
        """Return the soft prompt of each example's task. [B] -> [B, L, D]"""
        present, position = torch.unique(task_ids, return_inverse=True)
        vectors = TaskVectors(
            torch.stack([self.u[k] for k in present.tolist()]), torch.stack([self.v[k] for k in present.tolist()])
        )
        return compose(self.shared, vectors).index_select(0, position)

    @property
    def task_vectors(self) -> TaskVectors:
        """Return u [K, L, R] and v [K, R, D] of all tasks, without gradients."""
        return TaskVectors(torch.stack([u.detach() for u in self.u]), torch.stack([v.detach() for v in self.v]))

    @property
    def prompt_length(self) -> int:
        """L, soft tokens."""
        return int(self.shared.shape[0])

    @property
    def rank(self) -> int:
        """R of the task matrices."""
        return int(self.u[0].shape[1])

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The K tasks."""
        return self.card.tasks

    @torch.no_grad()
    def collapse(self) -> Tensor:
        """Return every task's ordinary soft prompt: what inference needs. [K, L, D]"""
        return compose(self.shared, self.task_vectors).detach()

    @property
    def backbone_config(self) -> BackboneConfig:
        """The backbone that the card names."""
        return BackboneConfig(name=self.card.backbone, revision=self.card.revision)

    def task_number(self, name: str | None) -> int:
        """Return the position of a task; the only one where no name is given.

        Raises:
            UnknownNameError: no such task in this prompt, or several and no name.
        """
        names = [task.name for task in self.tasks]
        if name is None and len(names) == 1:
            return 0
        if name not in names:
            raise UnknownNameError("task of this prompt", name or "", names)
        return names.index(name)

    def check_backbone(self, backbone: FrozenBackbone) -> None:
        """Raise BackboneMismatch unless the prompt was made for this very model."""
        if self.card.fingerprint != backbone.fingerprint():
            raise BackboneMismatch(
                f"the prompt of {', '.join(t.name for t in self.tasks)} was trained for {_named(self.card)}, and "
                f"a soft prompt fits no other model; got {backbone.config.name}. Load that model, or train a prompt "
                "for this one."
            )

    # -- files --------------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved: shared [L, D], u [K, L, R], v [K, R, D]."""
        vectors = self.task_vectors
        return {
            "shared": self.shared.detach().cpu().contiguous(),
            "u": vectors.u.cpu().contiguous(),
            "v": vectors.v.cpu().contiguous(),
        }

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the prompt's folder: prompt.safetensors with the card in its header, and a README.md.

        Raises:
            ArtifactError: the folder exists already.
        """
        folder = Path(folder)
        if folder.exists():
            raise ArtifactError(f"{folder} exists already; remove it or choose another name")
        write_folder(folder, self.write_files)

    def write_files(self, folder: Path) -> None:
        """Write the prompt's files into an existing folder; `save_pretrained` is the safe way."""
        # A folder's path stays on this machine, in config.json.
        card = self.card.model_copy(update={"backbone": public_name(self.card.backbone)})
        # One metadata key: several would be written in an arbitrary order, and equal prompts would differ in bytes.
        header = {"card": card.model_dump_json(exclude_none=True)}
        (folder / TENSORS).write_bytes(save(self.tensors(), metadata=header))
        (folder / "README.md").write_text(
            model_card(card.model_dump(), self.prompt_length, self.rank, int(self.shared.shape[1])),
            encoding="utf-8",
        )

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> Self:
        """Return the prompt of a folder, or of a repository on the Hugging Face hub.

        Raises:
            ArtifactError: nothing there, or damaged.
        """
        file = Path(name) / TENSORS
        here = Path(name).exists() or Path(f"{name}.partial").exists()
        if not here and str(name).count("/") == 1 and not str(name).startswith((".", "/")):
            file = _download(str(name), revision)
        if not file.is_file():
            raise ArtifactError(f"{name} is no prompt folder: it has no {TENSORS}. {_nearby(Path(name))}".rstrip())
        try:
            with safe_open(file, framework="pt") as stored:
                card = Card.model_validate_json((stored.metadata() or {})["card"])
                tensors = {key: stored.get_tensor(key) for key in ("shared", "u", "v")}
        except (SafetensorError, ValidationError, KeyError, OSError) as error:
            first = str(error).splitlines()[0]
            raise ArtifactError(
                f"{file} is damaged or no prompt of mptune ({first}). Train or copy it again."
            ) from None
        trained_with = stored_config(file.parent).get("backbone", {}).get("name", "")
        if public_name(trained_with) == card.backbone:
            card = card.model_copy(update={"backbone": trained_with})
        # Rows are read where this machine's user says, never where a stranger's card does.
        card = card.model_copy(update={"tasks": tuple(task.without_paths() for task in card.tasks)})
        return cls(tensors["shared"], TaskVectors(tensors["u"], tensors["v"]), card)

    def push_to_hub(self, repository: str, private: bool = False, token: str | None = None) -> str:
        """Upload the prompt and its model card; nothing else of its folder leaves this machine. Return its address."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            self.write_files(Path(scratch))
            return str(api.upload_folder(repo_id=repository, folder_path=scratch, commit_message="Upload soft prompt"))


def load_prompts(folder: str | Path) -> list[MultitaskPrompt]:
    """Return the prompt of a folder, or the prompts of all its subfolders by name.

    Raises:
        ArtifactError: none there.
    """
    return [MultitaskPrompt.from_pretrained(found) for found in prompt_folders(folder)]


def prompt_folders(folder: str | Path) -> list[Path]:
    """Return the folder itself if it is a prompt's, else its subfolders that are.

    Raises:
        ArtifactError: none is.
    """
    folder = Path(folder)
    if (folder / TENSORS).is_file():
        return [folder]
    folders = sorted(path.parent for path in folder.glob(f"*/{TENSORS}") if not path.parent.name.startswith("."))
    folders = [f for f in folders if not f.name.endswith(".partial")]
    if not folders:
        raise ArtifactError(f"{folder} holds no prompt, nor do its subfolders. {_nearby(folder)}".rstrip())
    return folders


def stored_config(folder: str | Path) -> dict[str, Any]:
    """Return the resolved configuration that was saved beside a prompt; empty where there is none."""
    file = Path(folder) / CONFIG
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ArtifactError(f"{file} is damaged: it is no JSON. Remove it, and name task and backbone again.")
    return values


def stack(prompts: Sequence[MultitaskPrompt]) -> Tensor:
    """Return the collapsed prompts of all tasks of several artifacts. [K, L, D]"""
    return torch.cat([prompt.collapse() for prompt in prompts])


def _named(card: Card) -> str:
    return f"{card.backbone}@{card.revision}" if card.revision else card.backbone


def _nearby(folder: Path) -> str:
    """Return a hint where the user may have meant a folder beside or below."""
    if folder.with_name(folder.name + ".partial").exists():
        return f"Its training has not ended; run the same command again to go on from {folder.name}.partial."
    below = [p.parent.name for p in folder.glob(f"*/{TENSORS}")]
    if below:
        return f"Did you mean one of its prompts: {', '.join(sorted(below))}?"
    return "" if folder.exists() else "There is no such folder."


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, TENSORS, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{repository} is no folder here, and not to be had from the hub: {first}") from None
