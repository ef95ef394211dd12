"""How the page says things: numbers, intervals, shots, and under which title a method stands."""

from collections.abc import Iterable, Sequence

from mptune.comparison.intervals import Interval
from mptune.comparison.methods import METHODS
from mptune.comparison.report.layout import Groups, Named
from mptune.comparison.results import FROM

OWN = "The recipe's own"  # family of its variants


def grouped(rows: Iterable[Named]) -> Groups:
    """Return rows by the family of their method, in the order of the families' first rows."""
    groups: dict[str, list[Named]] = {}
    for name, cells in rows:
        groups.setdefault(family(name), []).append((name, cells))
    return tuple((title, tuple(named)) for title, named in groups.items())


def family(method: str) -> str:
    """Return the title under which a method stands."""
    row = METHODS.get("from-sources" if method.startswith(FROM) else method)
    return row.family if row else OWN


def number(value: float) -> str:
    """Return ``61.2``."""
    return f"{value:.1f}".replace("-", "−")


def signed(value: float) -> str:
    """Return ``+4.1`` or ``−4.1``."""
    return f"{value:+.1f}".replace("-", "−")


def ends_of(interval: Interval) -> str:
    """Return ``+2.9 to +5.3``."""
    return f"{signed(interval.low)} to {signed(interval.high)}"


def spread(interval: Interval, sign: str = "± ") -> str:
    """Return ``± 1.2``, half of the interval's width; nothing where one value has none."""
    return f"{sign}{(interval.high - interval.low) / 2:.1f}" if interval.count > 1 else ""


def cosine(value: float) -> str:
    """Return ``.87``, ``−.05`` or ``1``, short enough for a cell of a heat map."""
    text = f"{value:.0f}" if abs(value) >= 0.995 else f"{value:.2f}".replace("0.", ".", 1)
    return text.removeprefix("-") if text == "-.00" else text.replace("-", "−")


def count_text(counts: tuple[int, int] | None) -> str:
    """Return ``10,240``, or ``9,932 to 10,240`` where tasks differ."""
    if counts is None:
        return "–"
    return f"{counts[0]:,}" if counts[0] == counts[1] else f"{counts[0]:,} to {counts[1]:,}"


def shots_text(shots: int | None) -> str:
    """Return ``16 shots per class``."""
    return "all training rows" if shots is None else f"{shots} shots per class" if shots else "no target examples"


def at_shots(shots: int | None) -> str:
    """Return ``at 16 shots per class``."""
    return (
        "on all training rows"
        if shots is None
        else f"at {shots} shots per class"
        if shots
        else "without target examples"
    )


def counted(number: int, noun: str) -> str:
    """Return ``5 seeds``, ``1 seed``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """Return the parts as one text."""
    return ", ".join(parts)


def capital(text: str) -> str:
    """Return a text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def distinct(texts: Iterable[str | None]) -> str:
    """Return the different texts, in their order, as one."""
    return "; ".join(dict.fromkeys(text for text in texts if text))
