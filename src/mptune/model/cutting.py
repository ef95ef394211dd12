"""Texts made to fit: their fields are cut at the end, the longest first, and a template's own words never.

Knows no model: what divides a text into tokens is handed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mptune.tasks.task import Span

TokenIds = Sequence[int]
Spans = Sequence[Span]  # the places of a text's fields

NEAR = 64  # a cut text may have a 64th less than fits, for fewer turns of the search
LONG = 10_000  # characters of a field from which on a part is looked at first


@dataclass(frozen=True)
class Tokenizer:
    """What is asked of a tokenizer."""

    read: Callable[[Sequence[str]], Sequence[TokenIds]]  # texts to token ids
    letters: Callable[[TokenIds], int]  # how many letters tokens have together, those of unknown ones not counted
    longest: Callable[[], int]  # letters of the vocabulary's longest token


@dataclass
class FittedText:
    """A text that fits, or is on its way there: between ``cap`` and ``high`` is the number of characters sought."""

    text: str
    spans: Spans
    ids: TokenIds = ()  # of the text with its fields cut to ``cap``
    cap: int | None = None  # characters of its longest fields; None where it is whole
    high: int = 0  # too many
    above: int = 0  # tokens at ``high``

    @property
    def cut_fields(self) -> list[str]:
        """The fields that were cut."""
        return [s.field for s in self.spans if self.cap is not None and s.end - s.start > self.cap]

    def at(self, cap: int) -> str:
        """Return the text whose fields are cut at their end to at most ``cap`` characters."""
        kept, place = [], 0
        for _, start, end in self.spans:
            kept.append(self.text[place : min(end, start + cap)])
            place = end
        return "".join([*kept, self.text[place:]])

    def guess(self, most: int, turn: int) -> int:
        """Return what to try next: by the rule of three, and the middle in every third turn, so that it ends."""
        low = self.cap or 0
        share = (most - len(self.ids)) / (self.above - len(self.ids)) if turn % 3 else 0.5
        return min(max(low + int(share * (self.high - low)), low + 1), self.high - 1)

    def sought(self, most: int) -> bool:
        """Return whether it fits, and more of it may."""
        if self.cap is None or len(self.ids) > most:
            return False
        return self.high - self.cap > 1 and most - len(self.ids) > most // NEAR


def whole(text: str) -> Spans:
    """Return the one field of a text without a template."""
    return (Span("text", 0, len(text)),)


def fitted(texts: Sequence[str], fields: Sequence[Spans], most: int, tokenizer: Tokenizer) -> tuple[FittedText, ...]:
    """Return texts as token ids, at most ``most`` each; those that fit are whole.

    Of one that does not fit, every field longer than some number of characters is cut to it. The number is the largest
    with which the text fits, or nearly. Where even empty fields do not fit, the tokens are those of the bare template.
    """
    rows = tuple(FittedText(text, spans) for text, spans in zip(texts, fields, strict=True))
    for row in rows:
        row.high = max((s.end - s.start for s in row.spans), default=0)
    short = [row for row in rows if row.high <= LONG or not _is_endless(row, most, tokenizer)]
    for row, ids in zip(short, tokenizer.read([row.text for row in short]), strict=True):
        row.ids, row.above = ids, len(ids)
    long = [row for row in rows if row.above > most]
    for row, ids in zip(long, tokenizer.read([row.at(0) for row in long]), strict=True):
        row.ids, row.cap = ids, 0
    turn = 0
    while pending := [row for row in long if row.sought(most)]:
        turn += 1
        caps = [row.guess(most, turn) for row in pending]
        tried = tokenizer.read([row.at(cap) for row, cap in zip(pending, caps, strict=True)])
        for row, cap, ids in zip(pending, caps, tried, strict=True):
            if len(ids) <= most:
                row.cap, row.ids = cap, ids
            else:
                row.high, row.above = cap, len(ids)
    return rows


def _is_endless(row: FittedText, most: int, tokenizer: Tokenizer) -> bool:
    """Return whether a part of a text shows that it is too long, and let the search begin below that part.

    However a text is divided, its tokens have the same letters together, and none has more than the longest. So with
    more letters than ``most`` of the longest, and one for what the edge of the part changes, no text can fit.
    """
    letters = tokenizer.longest() * (most + 1)
    cap = max(LONG, letters)
    while cap < row.high:
        (ids,) = tokenizer.read([row.at(cap)])
        if tokenizer.letters(ids) > letters:
            row.high, row.above = cap, len(ids)
            return True
        cap *= 2
    return False
