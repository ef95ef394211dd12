"""What the teachers answer to the training rows: asked once, kept on disk, and read at every step that meets a row."""

import itertools
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mptune.model.backbone import Backbone
from mptune.model.batch import Batch, Output, Pick
from mptune.model.encoding import Encoded, by_length, collate
from mptune.progress import step_progress

ROWS_AT_ONCE = 32


class TeacherOutputs:
    """The outputs of each row's own teacher.

    Logits at the label tokens and hidden states are about 0.3 MB a row of the embedded backbone; those of a hundred
    thousand rows of a large one fill a disk. Where they do not fit, every step asks the teachers again.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: Tensor,
        data: Sequence[Encoded],
        layers: Sequence[int],
        needed: Iterable[Pick],
        *,
        room: int,
        folder: Path | None = None,
    ) -> None:
        """Ask the teachers of all rows that will be needed, if their outputs fit.

        Args:
            prompts: the teacher of each of K tasks. [K, L, D]
            data: the K tasks' rows.
            layers: hidden layers to keep.
            needed: rows, repeated or not.
            room: bytes that may be written; of the disk's free ones, no more than half are.
            folder: of the temporary file; the system's where None.
        """
        self._backbone, self._prompts, self._data, self._layers = backbone, prompts.to(backbone.device), data, layers
        self._kept: dict[Pick, list[Tensor]] = {}
        rows = sorted(set(needed))
        entries = sum(sum(map(_entries, self._shapes(pick))) for pick in rows)
        free = shutil.disk_usage(folder or tempfile.gettempdir()).free  # a mapped file that finds none ends the process
        if 0 < entries * backbone.dtype.itemsize <= min(room, free // 2):
            self._keep(rows, entries, folder)

    def __call__(self, picks: Sequence[Pick], batch: Batch) -> Output:
        """Return the teachers' outputs to a batch of rows, without gradients; what stands at padding means nothing."""
        if not self._kept:
            # A teacher that is an instruction reads other tokens than the student does.
            return self._asked(collate(picks, self._data, self._backbone))
        left = not self._backbone.is_encoder_decoder
        width, room = batch.input_ids.shape[1], batch.labels.shape[1]
        logits, *hidden = zip(*(self._kept[pick] for pick in picks), strict=True)
        text, label = hidden[: len(self._layers)], hidden[len(self._layers) :]
        device = self._backbone.device
        return Output(
            _padded(logits, room).to(device),
            (*(_padded(t, width, left=left).to(device) for t in text), *(_padded(t, room).to(device) for t in label)),
        )

    def _keep(self, rows: Sequence[Pick], entries: int, folder: Path | None) -> None:
        dtype, device = self._backbone.dtype, self._backbone.device
        if device.type == "cuda" and entries * dtype.itemsize <= torch.cuda.mem_get_info(device)[0] // 2:
            flat = torch.empty(entries, dtype=dtype, device=device)  # copied to the card at every step else
        else:
            flat = self._on_disk(entries, folder)
        start = 0
        for pick in rows:
            ends = list(itertools.accumulate(map(_entries, self._shapes(pick)), initial=start))
            places = zip(itertools.pairwise(ends), self._shapes(pick), strict=True)
            self._kept[pick] = [flat[a:b].view(shape) for (a, b), shape in places]
            start = ends[-1]
        batches = list(by_length(rows, self._data, ROWS_AT_ONCE))
        with step_progress("teacher outputs", len(batches)) as progress:
            for number, picks in enumerate(batches, start=1):
                batch = collate(picks, self._data, self._backbone)
                found = self._asked(batch)
                for i, pick in enumerate(picks):
                    read, written = batch.mask[i].bool(), len(self._data[pick[0]].targets[pick[1]])
                    text, label = found.hidden[: len(self._layers)], found.hidden[len(self._layers) :]
                    parts = [found.logits[i, :written], *(t[i, read] for t in text), *(t[i, :written] for t in label)]
                    for place, part in zip(self._kept[pick], parts, strict=True):
                        place.copy_(part)
                progress.show(number)

    def _on_disk(self, entries: int, folder: Path | None) -> Tensor:
        """Return memory that is a file: without a name from here on, so that it goes with the process."""
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".teachers-", suffix=".part") as file:
            return torch.from_file(file.name, shared=True, size=entries, dtype=self._backbone.dtype)

    @torch.no_grad()
    def _asked(self, batch: Batch) -> Output:
        self._backbone.set_dropout(False)  # the teachers have learnt all they will
        return self._backbone(self._prompts[list(batch.tasks)], batch, self._layers)

    def _shapes(self, pick: Pick) -> list[tuple[int, int]]:
        """Return the shapes of what is kept of a row: logits, then layers of the text, then layers of the label."""
        task, row = pick
        read, written = len(self._data[task].inputs[row]), len(self._data[task].targets[row])
        width, count = self._backbone.width, len(self._layers)
        return [(written, self._backbone.vocabulary), *[(read, width)] * count, *[(written, width)] * count]


def _entries(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def _padded(rows: Sequence[Tensor], length: int, *, left: bool = False) -> Tensor:
    """Return rows of unlike lengths as one tensor. B of [T, D] -> [B, length, D]"""
    missing = length - max(map(len, rows))
    padded = pad_sequence(list(rows), batch_first=True, padding_side="left" if left else "right")
    return F.pad(padded, (0, 0, missing, 0) if left else (0, 0, 0, missing))
