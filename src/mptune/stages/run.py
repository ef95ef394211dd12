"""A run's folder: what it is, how far it came, what it measured; and going on where it stopped.

While a prompt trains, its folder is called ``<out>.partial``. It holds the resolved configuration, ``metrics.jsonl``
and ``state.safetensors``, from which a killed run goes on to the same bytes. When the run ends, the folder gets the
prompt and then its final name by one rename; the state goes last. A folder that cannot be renamed, as one that is
mounted, holds ``.partial`` within it, whose files move up, the prompt last.
"""

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mptune.config import TrainingConfig
from mptune.errors import ArtifactError, MptuneError, ResumeError, UsageError, first_line
from mptune.files import JsonLine, append_line, clean, followed, is_scratch, json_lines, settle, write_file
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.stored import CONFIG_FILE, PROMPT_FILE, stored_config
from mptune.stages.difference import change_told, first_difference

STATE = "state.safetensors"
METRICS_FILE = "metrics.jsonl"
WITHIN = ".partial"  # an unfinished run's files, in a folder that cannot be renamed


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
        self.writes = out is not None and first_process()
        self.identity = json.loads(json.dumps(identity))
        self._lock: FileLock | None = None
        if out is None:
            self.out = None
            return
        self.out, self.folder, lock = places(out)
        if not self.writes:
            return
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(lock)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"another process is training {out}; wait for it, or choose another --out") from None
        try:
            _refuse_link(self.folder)
            clean(self.folder)
            self._settle()
            for folder in (self.out, self.folder):
                self._refuse_change(folder)
            if not (self.out / PROMPT_FILE).is_file():
                self.folder.mkdir(exist_ok=True)
                write_file(
                    self.folder / CONFIG_FILE, json.dumps({**(local or {}), "identity": self.identity}, indent=2)
                )
        except BaseException:
            self.close()
            raise

    def _refuse_change(self, folder: Path) -> None:
        """Raise ResumeError if the folder holds a run with another identity, or no run at all."""
        identity = _identity_in(folder, ended=folder == self.out)
        if identity is not None:
            _refuse_difference(folder, folder == self.out, identity, self.identity)

    def finished(self) -> MultitaskPrompt | None:
        """Return the prompt that an equal run has already made; None where it must still be trained."""
        if self.out is None:
            return None
        # Whole in the folder of an unfinished run, it is about to be moved by the process that writes.
        while not self.writes and (self.folder / PROMPT_FILE).is_file() and not (self.out / PROMPT_FILE).is_file():
            time.sleep(0.05)
        return MultitaskPrompt.from_pretrained(self.out) if (self.out / PROMPT_FILE).is_file() else None

    # -- state --------------------------------------------------------------------------------------------------------

    def save_state(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Write everything that a later process needs to go on, whole or not at all."""
        if self.writes:
            flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            described = {"progress": json.dumps({**progress, "tensors": sorted(flat)})}
            write_file(self.folder / STATE, save(flat, metadata=described))

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
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - no mapping
            lacking = set(progress.get("tensors", ())) - set(tensors)
            if lacking:
                raise ValueError(f"it lacks {min(lacking)}")
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise self.damaged(error) from None
        return tensors, progress

    def damaged(self, error: Exception) -> ArtifactError:
        """Return the error of a state that cannot be gone on with."""
        why = first_line(error)[:200]
        return ArtifactError(f"{self.folder / STATE} is damaged ({why}); remove {self.folder} to start over")

    # -- metrics ------------------------------------------------------------------------------------------------------

    def log(self, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if self.writes:
            append_line(self.folder / METRICS_FILE, json.dumps(values))

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
            self._settle()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()  # what comes next may read the folder

    def _settle(self) -> None:
        """Give a prompt that is whole its final place, however far a killed process had come with that."""
        assert self.out is not None
        within = self.folder.parent == self.out
        if (self.folder / PROMPT_FILE).is_file() and not (self.out / PROMPT_FILE).exists():
            if not _readable(self.folder):
                (self.folder / PROMPT_FILE).unlink()  # the power failed while it was written; the state is there
                return
            if within:
                files = [path for path in self.folder.iterdir() if path.name not in (PROMPT_FILE, STATE)]
                for path in [*files, self.folder / PROMPT_FILE]:
                    settle(path, self.out / path.name)
            else:
                settle(self.folder, self.out)
        if (self.out / PROMPT_FILE).is_file():
            (self.out / STATE).unlink(missing_ok=True)
            if within:
                shutil.rmtree(self.folder, ignore_errors=True)

    def discard(self) -> None:
        """Remove a run whose result was taken over elsewhere."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None and self._lock.is_locked:
            with suppress(OSError):  # while it is held: who opens the file afterwards makes a new one
                Path(self._lock.lock_file).unlink()
            self._lock.release()


def _refuse_difference(folder: Path, ended: bool, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ResumeError if the run that a folder holds is another than that of now."""
    changed = first_difference(before, now)
    if changed is None:
        return
    field, state = changed[0], "holds a finished run" if ended else "is an unfinished run"
    if field.startswith("data."):
        raise ResumeError(
            f"{folder} {state} on other rows of {field.removeprefix('data.')}: they have changed since. Choose "
            "another --out, or remove the folder."
        )
    raise ResumeError(f"{folder} {state} {change_told(*changed)}, choose another --out, or remove the folder.")


def places(out: Path) -> tuple[Path, Path, Path]:
    """Return where a run's result will stand, links followed; where its files are until then; and its lock.

    Raises:
        UsageError: no place of its own.
        OSError: it cannot be looked at.
    """
    real = followed(out)
    if real == Path.cwd():
        raise UsageError(f"--out wants a folder of the run's own, and {str(out)!r} is the one you are in; name another")
    within = real / WITHIN
    if real == real.parent or (real.is_dir() and (within.exists() or (_empty(real) and not _cleared(real)))):
        return real, within, real / ".lock"
    return real, real.with_name(f"{real.name}.partial"), real.with_name(f".{real.name}.lock")


def try_out(out: Path, stage: str = "", config: TrainingConfig | None = None) -> bool:
    """Raise, before anything is computed, what would keep a run from leaving its result in a folder.

    Return whether there is a finished one, which is not trained again.

    Args:
        stage, config: what will be trained; what depends on rows is compared when they are read.

    Raises:
        UsageError: no place of its own; ResumeError: it holds what is no run, or one with other settings.
        OSError: nothing can be written there.
    """
    real, folder, _ = places(out)
    now = {} if config is None else config.model_dump(mode="json", exclude={"steps", "epochs", "most_epochs"})
    for place in (real, folder):
        identity = _identity_in(place, ended=place == real)
        before = (identity or {}).get(stage)
        if isinstance(before, dict):
            both = [field for field in now if field in before]
            then, since = ({stage: {field: values[field] for field in both}} for values in (before, now))
            _refuse_difference(place, place == real, then, since)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder.parent):
        pass
    return (real / PROMPT_FILE).is_file()


def _identity_in(folder: Path, *, ended: bool) -> dict[str, Any] | None:
    """Return the identity of the run that a folder holds; None where it holds nothing.

    Raises:
        ResumeError: it holds something else, or a link leads elsewhere.
    """
    _refuse_link(folder)
    if not folder.exists() or (folder.is_dir() and (_empty(folder) or (ended and (folder / WITHIN).is_dir()))):
        return None
    identity = stored_config(folder).get("identity")
    if not isinstance(identity, dict) or (ended and not (folder / PROMPT_FILE).is_file()):
        raise ResumeError(f"{folder} exists and is no run of mptune; choose another --out")
    return identity


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise ResumeError(f"{folder} is a link, where a run keeps its files; remove it, or choose another --out")


def _empty(folder: Path) -> bool:
    """Return whether a folder holds nothing but what a killed process had begun to write, or a file system keeps."""
    kept = (".lock", "lost+found")
    return all(is_scratch(path) or path.name in kept for path in folder.iterdir())


def _cleared(folder: Path) -> bool:
    """Take away an empty folder, whose place a run's will take; return whether that can be done, as no mount point."""
    try:
        clean(folder)
        folder.rmdir()
    except FileNotFoundError:  # another process of this training was faster
        return True
    except OSError:
        return False
    return True


def _readable(folder: Path) -> bool:
    try:
        MultitaskPrompt.from_pretrained(folder)
    except MptuneError:
        return False
    return True


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


def _whole_lines(file: Path) -> list[JsonLine]:
    """Return the lines of a run's metrics; not one that was being written when the process was killed."""
    lines = json_lines(file.read_text(encoding="utf-8", errors="replace"))  # after a power failure, of any bytes
    return [line for line in lines if isinstance(line.value, dict) and isinstance(line.value.get("step"), int)]
