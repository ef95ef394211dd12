"""Many files of rows to a folder of answers: each file is a part, which is answered and gone on with by itself."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mptune.answers.sheets import LINES, TABLES
from mptune.answers.streaming import ASIDE_ENDING, answer_file, aside_of, check_head, check_places, identity_of
from mptune.errors import UsageError
from mptune.files import append_line, json_lines
from mptune.tasks.rows import FORMATS, PACKED

if TYPE_CHECKING:
    from mptune.answers.prediction import Predictor
    from mptune.tasks.task import Task

LEDGER = ".parts.jsonl"  # in the folder of answers: what each part comes from, noted before it is begun


@dataclass(frozen=True)
class Part:
    """A file of rows, and the file of their answers."""

    source: Path
    output: Path


def are_many(rows: Path) -> bool:
    """Return whether rows are named by their folder, or by a pattern, as ``rows/*.parquet``."""
    return rows.is_dir() or (not rows.exists() and glob.has_magic(str(rows)))


def parts_of(rows: Path, output: Path | None) -> list[Part]:
    """Return the files of a folder or pattern in the order of their names, each with that of its answers.

    A table stays one, of its own kind; all else becomes JSON lines.

    Raises:
        UsageError: there are none, two would have one file of answers, or no folder is named for them.
    """
    if output is None or output.is_file() or output.suffix.lower().removeprefix(".") in (*TABLES, *LINES):
        raise UsageError(f"several files of rows want a folder for their answers as --output; got {output or 'none'}")
    named = sorted(rows.iterdir()) if rows.is_dir() else [Path(name) for name in sorted(glob.glob(str(rows)))]
    files = [file for file in named if file.is_file() and not file.name.startswith(".") and _is_read(file)]
    if not files:
        where = f"the folder {rows} has" if rows.is_dir() else f"{rows} names"
        raise UsageError(f"{where} no file of rows; wanted are {', '.join(f'.{each}' for each in FORMATS)}")
    parts = [Part(file, output / _name_of_answers(file)) for file in files]
    first: dict[Path, Path] = {}
    for part in parts:
        if (other := first.setdefault(part.output, part.source)) != part.source:
            raise UsageError(
                f"the answers to {other} and {part.source} would both be {part.output}; rename one of them"
            )
    if output.exists() and any(output.samefile(folder) for folder in {file.parent for file in files}):
        raise UsageError(f"{output} is the folder of the rows themselves; choose another --output")
    return parts


def check_parts(parts: Sequence[Part], tasks: "Sequence[Task]") -> None:
    """Raise UsageError or DataError, before the work, where rows cannot be read or answered, or answers not written."""
    folder = parts[0].output.parent
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UsageError(f"the folder {folder} cannot be made or written; give --output a place that can be")
    for part in parts:
        check_places(part.source, None)
        check_head(part.source, tasks)


def answer_parts(
    predictor: "Predictor", parts: Sequence[Part], *, probabilities: bool = False, aside: bool = False
) -> Iterator[tuple[Part, int | None]]:
    """Answer the rows of each part in turn; yield it with their number, None where an earlier call did.

    Raises:
        DataError: rows that cannot be answered; parts before them are done, and stay so.
        UsageError: a file stands in the place of answers that is not of this work, or another process is answering.
    """
    folder = parts[0].output.parent
    folder.mkdir(parents=True, exist_ok=True)
    ledger = folder / LEDGER
    noted = ledger.read_text(encoding="utf-8") if ledger.is_file() else ""
    begun = {line.value["part"]: line.value["work"] for line in json_lines(noted) if isinstance(line.value, dict)}
    for number, part in enumerate(parts, start=1):
        work = identity_of(predictor, part.source) + ("probabilities" if probabilities else "")
        whole = aside or not aside_of(part.output).exists()
        # Answers appear in their place only when all are there; without rows aside they are the same either way.
        if whole and part.output.exists() and begun.get(part.output.name) == work:
            yield part, None
            continue
        check_places(part.source, part.output, aside=aside)
        # On a line of its own, whatever a kill may have left of the last.
        append_line(ledger, "\n" + json.dumps({"part": part.output.name, "work": work}))
        title = f"{part.source.name}, {number} of {len(parts)}"
        with_words = probabilities and part.output.suffix.lower().removeprefix(".") in TABLES
        yield part, answer_file(predictor, part.source, part.output, probabilities=with_words, aside=aside, title=title)


def _is_read(file: Path) -> bool:
    """Return whether a file's name says that it holds rows, and not those that were put aside."""
    ending = file.name.removesuffix(".gz").rpartition(".")[2].lower()
    packed = file.name.endswith(".gz")
    return ending in (PACKED if packed else FORMATS) and not file.name.endswith(ASIDE_ENDING)


def _name_of_answers(file: Path) -> str:
    stem, _, ending = file.name.removesuffix(".gz").rpartition(".")
    kind = "csv" if ending.lower() == "txt" else ending.lower()
    return f"{stem}.{kind if kind in TABLES else 'jsonl'}"
