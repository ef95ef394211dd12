"""One thread that reads and writes: rows of any tasks in one batch, each behind its own prompt.

Rows whose label words are ranked go first, a batch at a time by a budget of tokens; between two such batches, texts
that are being written get tokens for a share of the time that the batch took, and one at least. So nobody who wants a
label waits for a long text, and a text goes on while labels are asked for.
"""

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mptune.errors import BackboneError, MptuneError
from mptune.model.backbone import Backbone
from mptune.model.batch import Batch
from mptune.model.chat import Chat
from mptune.model.encoding import Encoded, pad_batch, with_rows
from mptune.model.scoring import label_scores
from mptune.model.stepwise import Draft, Writer
from mptune.serving.settings import ServeConfig
from mptune.serving.store import MEGABYTE, Ready
from mptune.tasks.task import Example

logger = logging.getLogger(__name__)

WRITTEN_AT_ONCE = 64  # texts; others wait until one of them ends
# Of the time of a batch of label words, how much texts get behind it. One token each, and a text of fifty took a minute
# while 56 clients asked for labels (docs/LOG.md, 2026-11-28: a server under mixed load).
SHARE_OF_TEXTS = 0.25


class Busy(MptuneError):
    """More rows wait than may."""

    def __init__(self, waiting: int, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__(f"{waiting:,} rows wait already; come again in {self.seconds} s")


class Draining(MptuneError):
    """The server ends: it answers what it has accepted, and takes no more."""


class TooLate(MptuneError):
    """A row was not answered in time."""


@dataclass(frozen=True)
class Ranked:
    """The answer to a row with label words."""

    probabilities: tuple[float, ...]  # of the label words, in the verbalizer's order
    tokens: int  # read: soft tokens and the text's

    @property
    def best(self) -> int:
        """Which label word is the likeliest."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)


@dataclass(frozen=True)
class WrittenText:
    """What was written behind a row."""

    text: str
    ended: bool  # and not cut at its greatest length
    tokens: int  # read
    written: int  # tokens
    log_odds: tuple[float, ...] = ()
    pieces: tuple[int, ...] = ()  # its tokens


@dataclass(frozen=True)
class Sampling:
    """How a text is written."""

    most: int  # tokens
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    heard: Callable[[str], None] | None = None  # is told what is written so far, after every token


@dataclass(eq=False)
class Pending:
    """A row that waits for its answer."""

    ready: Ready
    inputs: Sequence[int]
    target: list[int]
    due: float  # time.monotonic() by which it is answered
    sampling: Sampling | None  # None where label words are ranked
    answer: "Future[Any]" = field(default_factory=Future)
    line: Draft | None = None

    @property
    def tokens(self) -> int:
        """How much there is to read."""
        return len(self.ready) + len(self.inputs)

    @property
    def kind(self) -> tuple[int, Chat | None]:
        """What rows that are read together have in common."""
        return len(self.ready), self.ready.words.chat


class Engine:
    """Answers rows of any tasks with one backbone, on a thread of its own."""

    def __init__(self, backbone: Backbone, config: ServeConfig) -> None:
        self.backbone, self.config = backbone, config
        self._lengths = config.lengths
        backbone.prefixes.keep(config.keys_megabytes * MEGABYTE)
        self._tokenizer = threading.Lock()  # a tokenizer changes its own settings where it reads targets
        self._wake = threading.Condition()
        self._ranking: dict[tuple[int, Chat | None], deque[Pending]] = {}
        self._texts: deque[Pending] = deque()
        self._waiting = 0  # rows, those of a running batch not among them
        self._writing: list[Pending] = []
        self._writer = Writer(backbone)
        self._draining = self._stopped = False
        self._rate = 100.0  # rows a second, of late
        self.batches: Callable[[int, int, float], None] = lambda rows, tokens, seconds: None  # is told of each
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # -- from other threads -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def submit(self, ready: Ready, examples: Sequence[Example], sampling: Sampling | None = None) -> list[Pending]:
        """Queue the rows of a task, and return them; each has a future of its answer.

        Args:
            sampling: how their texts are written; None ranks label words.

        Raises:
            Busy: too many wait.
            Draining: the server ends.
            DataError: a template that does not fit into the model.
        """
        self._refuse(len(examples))
        room = self._lengths if sampling is None else self._lengths.model_copy(
            update={"max_target_tokens": max(2, sampling.most)})  # fmt: skip
        with self._tokenizer:
            data: Encoded = with_rows(ready.words, examples, self.backbone, room, len(ready))
        due = time.monotonic() + self.config.timeout
        rows = [
            Pending(ready, inputs, target, due, sampling)
            for inputs, target in zip(data.inputs, data.targets, strict=True)
        ]
        with self._wake:
            self._refuse(len(rows))  # again: others came meanwhile
            for row in rows:
                if sampling is None:
                    self._ranking.setdefault(row.kind, deque()).append(row)
                else:
                    self._texts.append(row)
            self._waiting += len(rows)
            self._wake.notify()
        return rows

    def _refuse(self, more: int) -> None:
        if self._draining or self._stopped:
            raise Draining("the server ends, and takes no more rows; ask another, or this one when it is back")
        if self._waiting + more > self.config.max_queue and self._waiting:
            raise Busy(self._waiting, self._waiting / self._rate)

    @property
    def waiting(self) -> int:
        """Rows that wait."""
        return self._waiting

    @property
    def writing(self) -> int:
        """Texts that are being written."""
        return len(self._writing)

    def refuse_more(self) -> None:
        """Take no more rows. Safe in a signal's handler: it takes no lock."""
        self._draining = True

    def drain(self) -> None:
        """Take no more rows, and return when all that were accepted are answered, or their time is over."""
        with self._wake:
            self._draining = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(self.config.timeout)
        self._stopped = True

    @property
    def draining(self) -> bool:
        """Whether it takes no more rows."""
        return self._draining

    # -- on its own thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._writing or self._draining):
                    self._wake.wait()
                if self._draining and not (self._waiting or self._writing):
                    return
                batch = self._take()
                joining = self._take_texts()
            began = time.perf_counter()
            if batch:
                self._guarded(batch, self._rank)
            if joining:
                self._guarded(joining, self._join)
            self._write(SHARE_OF_TEXTS * (time.perf_counter() - began) if batch else 0.0)

    def _take(self) -> list[Pending]:
        """Return the rows that are read next: those that can be read with the one that waits longest."""
        kinds = [kind for kind, rows in self._ranking.items() if rows]
        if not kinds:
            return []
        rows = self._ranking[min(kinds, key=lambda kind: self._ranking[kind][0].due)]
        taken: list[Pending] = []
        tokens = 0
        while rows and (not taken or tokens + rows[0].tokens <= self.config.max_batch_tokens):
            row = rows.popleft()
            self._waiting -= 1
            if self._wanted(row):
                taken.append(row)
                tokens += row.tokens
        return taken

    def _take_texts(self) -> list[Pending]:
        """Return the texts that begin now, of one kind."""
        taken: list[Pending] = []
        tokens = 0
        while self._texts and len(self._writing) + len(taken) < WRITTEN_AT_ONCE:
            row = self._texts[0]
            if taken and (row.kind != taken[0].kind or tokens + row.tokens > self.config.max_batch_tokens):
                break
            self._texts.popleft()
            self._waiting -= 1
            if self._wanted(row):
                taken.append(row)
                tokens += row.tokens
        return taken

    def _wanted(self, row: Pending) -> bool:
        """Return whether somebody still waits for a row; who waited too long is told."""
        if row.answer.cancelled():
            return False
        if row.due < time.monotonic():
            _fail(row, TooLate(f"no answer within {self.config.timeout:g} s; the server has too much to do"))
            return False
        return True

    def _guarded(self, rows: Sequence[Pending], work: Callable[[list[Pending]], None]) -> None:
        """Do something for rows; where it fails, they are told, and the next rows are answered all the same."""
        began = time.perf_counter()
        try:
            work(list(rows))
        except Exception as error:  # whatever a model raises
            logger.exception("a batch of %d rows failed", len(rows))
            self._writer.drop([row.line for row in rows if row.line is not None])
            for row in rows:
                _fail(row, error)
            gone = set(map(id, rows))
            self._writing = [row for row in self._writing if id(row) not in gone]
        else:
            seconds = time.perf_counter() - began
            if work == self._rank:
                self._rate = 0.8 * self._rate + 0.2 * len(rows) / max(seconds, 1e-6)
                self.batches(len(rows), sum(row.tokens for row in rows), seconds)

    def _read(self, rows: Sequence[Pending]) -> tuple[Tensor, Batch]:
        """Return the table of rows' prompts [K, L, D], and their batch."""
        distinct = {id(row.ready): row.ready for row in rows}
        place = {key: number for number, key in enumerate(distinct)}
        table = torch.stack([ready.collapse() for ready in distinct.values()])
        batch = pad_batch(
            self.backbone,
            [place[id(row.ready)] for row in rows],
            [row.inputs for row in rows],
            [row.target for row in rows],
            [row.ready.words.label_ids for row in rows] if rows[0].sampling is None else (),
        )
        return table, replace(batch, chat=rows[0].ready.words.chat)

    @torch.no_grad()
    def _rank(self, rows: list[Pending]) -> None:
        scores = label_scores(self.backbone, *self._read(rows)).cpu()
        for row, values in zip(rows, scores, strict=True):
            temperature = row.ready.calibration.temperature if row.ready.calibration else 1.0
            of_words = (values[: len(row.ready.words.label_ids)] / temperature).softmax(-1)
            if bool(of_words.isfinite().all()):
                _tell(row, Ranked(tuple(of_words.tolist()), row.tokens))
            else:
                _fail(row, BackboneError(f"{self.backbone.config.name} answers with numbers that are not finite"))

    def _join(self, rows: list[Pending]) -> None:
        end = int(self.backbone.tokenizer.eos_token_id)
        for row in rows:
            how, chat = row.sampling, row.ready.words.chat
            assert how is not None
            draws = None
            if how.temperature > 0:
                draws = torch.Generator(self.backbone.device)
                draws.manual_seed(how.seed) if how.seed is not None else draws.seed()
            ends = frozenset({end, *([chat.end] if chat else [])})
            row.line = Draft(how.most, ends, how.temperature, how.top_p, draws)
        self._writing += rows
        self._writer.join(*self._read(rows), [row.line for row in rows if row.line is not None])
        self._heard(rows)

    def _write(self, seconds: float) -> None:
        """Write one token more of every text, and more of them for so long."""
        until = time.perf_counter() + seconds
        while self._writing:
            self._guarded(self._writing, lambda rows: self._step())
            if time.perf_counter() >= until:
                break

    def _step(self) -> None:
        self._writer.step()
        self._heard(self._writing)

    def _heard(self, rows: Sequence[Pending]) -> None:
        """Tell who listens what was written, and let go of texts that have ended."""
        done = []
        for row in rows:
            line, how = row.line, row.sampling
            assert line is not None
            assert how is not None
            looked_at = line.done or how.stop or how.heard
            text = str(self.backbone.tokenizer.decode(line.ids, skip_special_tokens=True)) if looked_at else ""
            cut = min((at for stop in how.stop if (at := text.find(stop)) >= 0), default=None)
            late = not line.done and not self._wanted(row)
            if how.heard and not late:
                how.heard(text[:cut])
            if line.done or cut is not None or late:
                done.append(row)
                ended = line.ended or cut is not None
                said = text[:cut].strip()
                _tell(row, WrittenText(said, ended, row.tokens, len(line.ids), tuple(line.log_odds), tuple(line.ids)))
        self._writer.drop([row.line for row in done if row.line is not None])
        gone = set(map(id, done))
        self._writing = [row for row in self._writing if id(row) not in gone]


def _tell(row: Pending, answer: Ranked | WrittenText) -> None:
    with contextlib.suppress(InvalidStateError):  # nobody waits any more
        row.answer.set_result(answer)


def _fail(row: Pending, error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):
        row.answer.set_exception(error)
