"""The multitask prompt: one shared prompt and K pairs of task vectors, all that training learns."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from mptune.config import BackboneConfig
from mptune.errors import ArtifactError, BackboneMismatch, ShapeError, UnknownNameError, UsageError
from mptune.files import digest, refuse_existing, write_folder
from mptune.model.backbone import Backbone
from mptune.model.shapes import check_shape
from mptune.prompts.card import Card
from mptune.prompts.folder import read_prompt, upload, write_prompt
from mptune.prompts.modelcard import card_rows
from mptune.prompts.stored import CONFIG_FILE, prompt_folders, stored_config
from mptune.prompts.vectors import TaskVectors, compose
from mptune.tasks.task import Task
from mptune.terminal import visible


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

    def forward(self, tasks: Sequence[int]) -> Tensor:
        """Return the soft prompts of some of its tasks, by number. [len(tasks), L, D]"""
        vectors = TaskVectors(torch.stack([self.u[k] for k in tasks]), torch.stack([self.v[k] for k in tasks]))
        return compose(self.shared, vectors)

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
            UnknownNameError: no such task in this prompt.
            UsageError: several, and no name.
        """
        names = [task.name for task in self.tasks]
        if name is None and len(names) > 1:
            raise UsageError(f"this prompt is of several tasks: {', '.join(names)}. Name one of them.")
        if name is None:
            return 0
        if name not in names:
            raise UnknownNameError("task of this prompt", name, names)
        return names.index(name)

    def check_backbone(self, backbone: Backbone) -> None:
        """Raise BackboneMismatch unless the prompt was made for this very model."""
        if self.card.fingerprint != backbone.fingerprint:
            raise BackboneMismatch(
                f"the prompt of {', '.join(t.name for t in self.tasks)} was trained for {self.card.backbone_at}, and "
                f"a soft prompt fits no other model; got {backbone.config.name}. Load that model, or train a prompt "
                "for this one."
            )
        if self.shared.shape[1] != backbone.width:
            raise BackboneMismatch(
                f"the prompt of {', '.join(t.name for t in self.tasks)} is {self.shared.shape[1]} wide, and "
                f"{backbone.config.name} {backbone.width}: it was never trained for that model. Train or copy it again."
            )

    def __repr__(self) -> str:
        """Return the card, as `mptune show` has it."""
        rows = card_rows(self.card, self.prompt_length, self.rank, self.shared.shape[1])
        room = max(len(name) for name, _ in rows)
        return "\n".join(["MultitaskPrompt", *(f"  {name:{room}}  {visible(value)}" for name, value in rows)])

    # -- files --------------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved: shared [L, D], u [K, L, R], v [K, R, D]."""
        vectors = self.task_vectors
        parts = {"shared": self.shared.detach(), "u": vectors.u, "v": vectors.v}
        return {name: tensor.cpu().contiguous() for name, tensor in parts.items()}

    def digest(self) -> str:
        """Return a hash of the tensors, by which equal prompts are known."""
        return digest(b"".join(tensor.numpy().tobytes() for _, tensor in sorted(self.tensors().items())))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the prompt's folder: prompt.safetensors with the card in its header, and a README.md.

        Raises:
            UsageError: the folder exists already.
            ArtifactError: numbers that are not finite.
        """
        folder = Path(folder)
        refuse_existing(folder)
        write_folder(folder, self.write_files)

    def write_files(self, folder: Path) -> None:
        """Write the prompt's files into an existing folder; `save_pretrained` is the safe way."""
        write_prompt(folder, self.tensors(), self.card)

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> Self:
        """Return the prompt of a folder, or of a repository on the Hugging Face hub.

        Raises:
            ArtifactError: nothing there, or damaged.
        """
        tensors, card = read_prompt(name, revision)
        try:
            return cls(tensors["shared"], TaskVectors(tensors["u"], tensors["v"]), card)
        except ShapeError as error:
            raise ArtifactError(f"{name} is damaged: {error}. Train or copy it again.") from None

    def push_to_hub(self, repository: str, private: bool = False, token: str | None = None) -> str:
        """Upload the prompt and its model card; nothing else of its folder leaves this machine. Return its address."""
        with tempfile.TemporaryDirectory() as scratch:
            self.write_files(Path(scratch))
            return upload(repository, Path(scratch), private=private, token=token)


def load_prompts(name: str | Path) -> list[MultitaskPrompt]:
    """Return the prompt of a folder, the prompts of all its subfolders by name, or the prompt of a hub repository.

    Raises:
        ArtifactError: none there.
        UsageError: several of one task, as of many seeds.
    """
    places = prompt_folders(name) if Path(name).is_dir() else [name]
    prompts = [MultitaskPrompt.from_pretrained(each) for each in places]
    refuse_namesakes(prompts, [str(place) for place in places])
    return prompts


def refuse_namesakes(prompts: Sequence[MultitaskPrompt], places: Sequence[str] = ()) -> None:
    """Raise UsageError where several prompts, or tasks of one, have a name in common: one would win without a word.

    Args:
        places: what each prompt is called; what their cards say where they have no place.
    """
    named: dict[str, list[str]] = {}
    for number, prompt in enumerate(prompts):
        place = places[number] if places else f"the {prompt.card.stage} prompt of seed {prompt.card.seeds.get('seed')}"
        for task in prompt.tasks:
            named.setdefault(task.name, []).append(place)
    for task_name, found in named.items():
        if len(found) > 1:
            one = f", as {found[0]}" if places and len(set(found)) > 1 else ""
            raise UsageError(
                f"{len(found)} prompts are there for the task {task_name!r}: {', '.join(found)}. Name one of them{one}."
            )


def stack(prompts: Sequence[MultitaskPrompt]) -> Tensor:
    """Return the collapsed prompts of all tasks of several artifacts. [K, L, D]"""
    return torch.cat([prompt.collapse() for prompt in prompts])


def backbone_of(
    prompt: MultitaskPrompt | None,
    folder: str | Path | None = None,
    name: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> BackboneConfig:
    """Return the backbone to load: as named; else as saved beside a prompt on this machine; else as its card says.

    Args:
        folder: of the prompt; a hub repository has nothing saved here.
        name: a hub id or a folder of a model.
        changes: fields in place of that backbone's own.
    """
    config = prompt.backbone_config if prompt else BackboneConfig()
    if name:
        config = BackboneConfig(name=name)
    elif folder is not None and Path(folder).is_dir() and (saved := stored_config(folder).get("backbone")):
        config = BackboneConfig.read(saved, f"{folder}/{CONFIG_FILE}")
    return BackboneConfig.read({**config.model_dump(), **changes}, "backbone") if changes else config
