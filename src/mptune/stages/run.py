"""A run's folder: what it is, how far it came, what it measured; and going on where it stopped.

While a prompt trains, its folder is called ``<out>.partial``. It holds the resolved configuration, ``metrics.jsonl``
and ``state.safetensors``, from which a killed run goes on to the same bytes. When the run ends, the folder gets the
prompt and its final name by one rename.
"""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mptune.errors import ArtifactError, ResumeError, UsageError, first_line
from mptune.files import JsonLine, json_lines, write_file
from mptune.prompts.folder import CONFIG_FILE, PROMPT_FILE, stored_config
from mptune.prompts.prompt import MultitaskPrompt

STATE = "state.safetensors"
METRICS_FILE = "metrics.jsonl"


class Run:
    """One execution of a stage, with a folder or (``out`` None) in memory only.

    Of several processes that train together, the first writes and the others read: none of them gets ahead of the
    others, since every step needs all, and so does the end.
    """

    def __init__(self, out: Path | None, identity: Mapping[str, Any], local: Mapping[str, Any] | None = None) -> None:
        """Open, or reopen, the folder of a run.

        Args:
            out: where the finished prompt goes.
            identity: what must be equal for a run to go on: configuration, data, backbone.
            local: what else is saved beside it, such as paths.

        Raises:
            ResumeError: ``out`` holds a finished or unfinished run that differs, naming the first field that does.
            UsageError: another process is training there.
        """
        self.out = out
        self.writes = out is not None and first_process()
        self.identity = json.loads(json.dumps(identity))
        self._lock: FileLock | None = None
        if out is None:
            return
        self.folder = out.with_name(out.name + ".partial")
        if not self.writes:
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(out.with_name(f".{out.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"another process is training {out}; wait for it, or choose another --out") from None
        try:
            for folder in (out, self.folder):
                self._refuse_change(folder)
            if not (out / PROMPT_FILE).is_file():
                self.folder.mkdir(exist_ok=True)
                write_file(
                    self.folder / CONFIG_FILE, json.dumps({**(local or {}), "identity": self.identity}, indent=2)
                )
        except BaseException:
            self.close()
            raise

    def _refuse_change(self, folder: Path) -> None:
        """Raise ResumeError if the folder holds a run with another identity, or no run at all."""
        if not folder.exists() or (folder.is_dir() and not any(map(_counts, folder.iterdir()))):
            return
        stored = stored_config(folder)
        ended = (folder / PROMPT_FILE).is_file()
        if "identity" not in stored or (folder == self.out and not ended):
            raise ResumeError(f"{folder} exists and is no run of mptune; choose another --out")
        changed = first_difference(stored["identity"], self.identity)
        if changed is not None:
            field, old, new = changed
            state = "holds a finished run" if folder == self.out else "is an unfinished run"
            raise ResumeError(
                f"{folder} {state} with {field} = {old}, and now it is {new}. "
                "Take the old value, choose another --out, or remove the folder."
            )

    def finished(self) -> MultitaskPrompt | None:
        """Return the prompt that an equal run has already made; None where it must still be trained."""
        if self.out is not None and (self.out / PROMPT_FILE).is_file():
            return MultitaskPrompt.from_pretrained(self.out)
        return None

    # -- state --------------------------------------------------------------------------------------------------------

    def save_state(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Write everything that a later process needs to go on, whole or not at all."""
        if self.writes:
            flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            write_file(self.folder / STATE, save(flat, metadata={"progress": json.dumps(progress)}))

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what `save_state` last wrote; None at the start of a run.

        Raises:
            ArtifactError: the file is damaged.
        """
        if self.out is None or not (self.folder / STATE).is_file():
            return None
        try:
            with safe_open(self.folder / STATE, framework="pt") as stored:
                progress = json.loads(stored.metadata()["progress"])
                return {key: stored.get_tensor(key) for key in stored.keys()}, progress  # noqa: SIM118 - no mapping
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{self.folder / STATE} is damaged ({first_line(error)}); remove {self.folder} to start over"
            ) from None

    # -- metrics ------------------------------------------------------------------------------------------------------

    def log(self, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if self.writes:
            with (self.folder / METRICS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return what was logged, line by line; nothing of a run in memory, or that another process writes."""
        return read_metrics(self.folder) if self.writes else []

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps that a killed process took and that will be taken again."""
        file = self.folder / METRICS_FILE if self.writes else None
        if file is not None and file.is_file():
            kept = [line for line in _whole_lines(file) if int(line.value["step"]) <= step]
            write_file(file, "".join(line.text + "\n" for line in kept))

    # -- the end ------------------------------------------------------------------------------------------------------

    def finish(self, prompt: MultitaskPrompt) -> None:
        """Put the prompt into the folder and give it its final name; no process returns before it stands there."""
        if self.out is None:
            return
        if self.writes:
            prompt.write_files(self.folder)
            (self.folder / STATE).unlink(missing_ok=True)
            if self.out.is_dir():
                self.out.rmdir()  # an empty folder that the user had made
            self.folder.rename(self.out)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # what comes next may read the folder

    def discard(self) -> None:
        """Remove a run whose result was taken over elsewhere."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None:
            self._lock.release()


def processes() -> int:
    """Return how many processes train together, as torchrun and `accelerate launch` tell each of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_process() -> bool:
    """Return whether this process is alone, or the first of those that train together."""
    return processes() < 2 or os.environ.get("RANK", "0") == "0"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl, finished or not; none where there is no such file."""
    file = folder / METRICS_FILE
    return [line.value for line in _whole_lines(file)] if file.is_file() else []


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return the first field in which two nested configurations differ, with both values; None where they are equal."""
    old, new = _flat(before), _flat(now)
    for field in [*new, *old]:
        if old.get(field) != new.get(field):
            return field, _short(old.get(field)), _short(new.get(field))
    return None


def pack_state(prompt: nn.Module, optimizer: torch.optim.Optimizer, best: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return prompt, optimizer and best prompt so far as one flat mapping of tensors."""
    tensors: dict[str, Tensor] = {f"prompt.{name}": p for name, p in prompt.named_parameters()}
    tensors |= {f"best.{name}": p for name, p in best.items()}
    for number, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in entry.items()}
    # Tensors that share memory cannot be stored twice.
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def unpack_state(
    tensors: Mapping[str, Tensor], prompt: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Put prompt and optimizer back where `pack_state` took them; return the best prompt so far."""
    prompt.load_state_dict(_under("prompt.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer.", tensors).items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return _under("best.", tensors)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM wait for the end of a step; yield what tells whether one has come.

    A second Ctrl-C does not wait. Outside the main thread, where Python allows no handlers, nothing is changed.
    """
    asked = threading.Event()

    def handler(number: int, _: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _counts(path: Path) -> bool:
    """Return whether a file is more than what a killed process had begun to write."""
    return not (path.name.startswith(".") and path.name.endswith(".part"))


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    if isinstance(values, list) and any(isinstance(value, dict) for value in values):
        values = {str(number): value for number, value in enumerate(values)}
    if isinstance(values, dict):
        flat: dict[str, Any] = {}
        for key, value in values.items():
            flat |= _flat(value, f"{path}.{key}" if path else key)
        return flat
    return {path: values}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _whole_lines(file: Path) -> list[JsonLine]:
    """Return the lines of a run's metrics; not one that was being written when the process was killed."""
    lines = json_lines(file.read_text(encoding="utf-8"))
    return [line for line in lines if isinstance(line.value, dict) and "step" in line.value]
