"""Files and hub data sets to rows: the one file that touches `datasets`. What cannot be read is said, not raised."""

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mptune.errors import UsageError, first_line, reason
from mptune.files import json_lines, nearest, parsed
from mptune.tasks.cells import column_name
from mptune.tasks.dataset import Dataset, HubData
from mptune.tasks.hub import hub_answers
from mptune.tasks.tables import WESTERN, Ended, Missing, delimited_rows, encoding_of, sheet_rows
from mptune.tasks.task import SPLITS, Task
from mptune.terminal import warn_once

FORMATS = ("jsonl", "json", "csv", "tsv", "txt", "xlsx", "parquet")
DELIMITED = ("csv", "tsv", "txt")  # spreadsheets write tabs into the last
PACKED = (*DELIMITED, "jsonl", "json")  # with .gz behind it
WORKBOOKS = ("xls", "xlsm", "xlsb", "ods", "numbers")  # that people have, and are not read

# Each with its number: the line of a jsonl file, the row of a table with its header as row 1, else from 1.
NumberedRows = list[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Reading:
    """What somebody named of how a table is read; what is found by looking where None."""

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None


def sources_of(task: Task, data_dir: Path | None) -> dict[str, list[str]]:
    """Return what each split is read from: its name on the hub, or its files; a split that is held out has none.

    A folder with local rows of a hub task may lack some of them. Where it has no test rows, its validation rows are
    the test rows, as is usual where test labels are secret; where it has none of either, test rows are held out too.
    """
    assert task.dataset is not None
    named = {split: name for split in SPLITS if (name := getattr(task.dataset, split))}
    if data_dir is None or task.dataset.hub is None:
        return {split: [name] for split, name in named.items()}
    sources: dict[str, list[str]] = {}
    for split in ("train", "test", "validation"):  # one file serves one split, and the test split first
        files = _local_files(task, named[split], data_dir) if split in named else []
        if files and files not in sources.values():
            sources[split] = files
    if "test" in named and "test" not in sources and "validation" in sources:
        sources["test"] = sources.pop("validation")
        warn_once(f"{task.name}: there are no test rows in {data_dir.name}/; the validation rows are tested")
    elif "test" in named and "test" not in sources and "train" in sources:
        warn_once(f"{task.name}: there are only training rows in {data_dir.name}/; some are held out")
    missing = ("train", "test") if "train" not in sources else ()
    for split in missing:
        if split in named and split not in sources:
            sources[split] = [str(data_dir / f"{task.name}.{named[split]}.jsonl")]  # said to be missing when it is read
    return sources


def unlabelled_sources(task: Task, data_dir: Path | None) -> list[str]:
    """Return what the rows without labels are read from, as `sources_of` does for the splits; nothing without any."""
    dataset = task.dataset
    if dataset is None or dataset.unlabelled is None:
        return []
    if data_dir is None or dataset.hub is None:
        return [dataset.unlabelled]
    missing = [str(data_dir / f"{task.name}.{dataset.unlabelled}.jsonl")]  # said when it is read
    return _local_files(task, dataset.unlabelled, data_dir) or missing


def _local_files(task: Task, split: str, folder: Path) -> list[str]:
    """Return the files in which a hub task's split lies.

    One file serves splits like validation_matched, and several files, as test_seen and test_unseen, make one split.
    """
    for name in (split, split.partition("_")[0], f"{split}_*"):
        for gz in ("", ".gz"):
            if files := sorted(folder.glob(f"{task.name}.{name}.jsonl{gz}")):
                return [str(file) for file in files]
    return []


def read_rows(
    task: Task, split: str, source: str, data_dir: Path | None, problems: list[str]
) -> tuple[NumberedRows, str]:
    """Return the rows of one source of a split, and how the place is called: a file's name, or the hub's."""
    assert task.dataset is not None
    hub = task.dataset.hub
    if hub is not None and data_dir is None:
        place = "/".join(filter(None, (hub.path, hub.name or hub.folder, source)))
        return _hub_rows(task, hub, source, place, problems), place
    return _file_rows(Path(source), split, problems, task.dataset), Path(source).name


def _hub_rows(task: Task, hub: HubData, split: str, place: str, problems: list[str]) -> NumberedRows:
    reached = Path(hub.path).is_dir() or hub_answers()
    import datasets

    datasets.disable_progress_bars()
    if not reached:  # read from its own copy of the setting
        datasets.config.HF_HUB_OFFLINE = True
    try:
        loaded = datasets.load_dataset(hub.path, hub.name, data_dir=hub.folder, revision=hub.revision, split=split)
    except Exception as error:
        # The hub's client raises whatever its transport raises; each means that the rows are not to be had.
        why = first_line(error)[:200] if reached else "which cannot be reached, and no copy is kept here"
        problems.append(
            Missing(
                f"{place} cannot be loaded from the hub ({why}). Check name and network, or put "
                f"{task.name}.{split}.jsonl into a folder and name that: --data DIR of a command, the data: line of a "
                "recipe"
            )
        )
        return []
    return list(enumerate(loaded, start=1))


def _file_rows(path: Path, split: str, problems: list[str], dataset: Dataset) -> NumberedRows:
    """Return the rows of a file, and report those that cannot be read.

    Text stays the text of the file: readers of tables take "None" for nothing, "007" for 7 and "2024-01-02" for a date.
    """
    if "\0" in str(path):
        problems.append(Missing(f"{str(path)!r} ({split}) is no path"))
        return []
    file = _judged(path)
    ending = _ending(file)
    if path.is_dir():
        problems.append(Missing(f"{path.name} ({split}) is a folder, and a file of rows is wanted"))
    elif not path.is_file():
        folder = path.parent.name or "."
        problems.append(Missing(f"{path.name} ({split}) does not exist in {folder}/{nearest(path)}"))
    elif why := _unread(file):
        problems.append(f"{path.name} ({split}): {why}")
    else:
        how = Reading(dataset.encoding, dataset.delimiter, dataset.sheet)
        try:
            return list(_rows_of(file, ending, path.name, problems, how))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            problems.append(f"{path.name} ({split}) cannot be read as {ending}: {first_line(error)[:200]}")
    return []


def found_reading(file: Path, sheet: str | None = None) -> dict[str, str]:
    """Return what a task's ``dataset`` says of how a table is read that was taken for something, or of which part."""
    how = {} if sheet is None else {"sheet": sheet}
    if _ending(_judged(file)) in DELIMITED and encoding_of(file) == WESTERN:
        how["encoding"] = WESTERN
    return how


def _judged(path: Path) -> Path:
    """Return the file by whose name a path is judged: a link's own where that says what it is, else its target's."""
    return path if _ending(path) in FORMATS else path.resolve()


def _unread(file: Path) -> str | None:
    """Return why a file is not read, judged by its name, and what to do; None where it is."""
    ending = _ending(file)
    if ending in WORKBOOKS:
        return f".{ending} is not read; save it as .xlsx or .csv"
    if ending not in FORMATS:
        named = f".{ending}" if "." in file.name else "a name without an ending"
        listed = [f".{each}" for each in FORMATS]
        return f"{named} is not read; save it as {', '.join(listed[:-1])} or {listed[-1]}"
    return f".{ending}.gz is not read; unpack it" if file.name.endswith(".gz") and ending not in PACKED else None


def _ending(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[2].lower()


def _rows_of(
    file: Path | None,
    ending: str,
    name: str,
    problems: list[str],
    how: Reading,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the numbered rows of a file, or of standard input, one by one; what is wrong goes to ``problems``."""
    if file is not None and ending == "parquet":
        yield from ((number, _composed(row)) for number, row in enumerate(_parquet_rows(file), start=1))
        return
    if file is not None and ending == "xlsx":
        yield from sheet_rows(file, name, problems, how.sheet)
        return
    if file is not None and ending in DELIMITED and not (ending == "txt" and _begins_as_json(file)):
        with _opened(file, encoding_of(file, how.encoding), newline="") as text:
            yield from delimited_rows(text, name, problems, how.delimiter or ("\t" if ending == "tsv" else None))
        return
    with _opened(file) as text:
        rows: Iterable[tuple[int, Any]]
        if ending == "json" and (whole := text.read()).lstrip().startswith("["):
            rows = enumerate(parsed(whole), start=1)
        else:
            rows = _json_lines(whole if ending == "json" else text, name, problems)
        for number, row in rows:
            if isinstance(row, dict) and _by_columns(row):
                problems.append(
                    f"{name} row {number} is a whole table by columns, as pandas' to_json() writes it; "
                    'write rows: to_json(..., orient="records", lines=True)'
                )
            elif not isinstance(row, dict):
                problems.append(f"{name} row {number}: wants {{field: value}}; got {json.dumps(row)[:40]}")
            else:
                yield number, _composed(row)


def _begins_as_json(file: Path) -> bool:
    """Return whether a text begins as lines of JSON do, and no table."""
    with _opened(file, encoding_of(file)) as text:
        return next(filter(None, map(str.strip, text)), "").startswith('{"')


def _composed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose columns' names have composed letters, as templates have."""
    return row if all(map(str.isascii, row)) else {column_name(column): value for column, value in row.items()}


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet  # type: ignore[import-untyped] # datasets refuses a parquet file without rows

    with file.open("rb") as opened:  # of a path, pyarrow would read folder names like fold=1 as columns
        for batch in parquet.ParquetFile(opened).iter_batches(1000):
            yield from batch.to_pylist()


@contextmanager
def _opened(file: Path | None, encoding: str = "utf-8-sig", newline: str | None = None) -> Iterator[IO[str]]:
    """Open a text in UTF-8, whatever the locale says, by lines of any ending; a table's cells keep theirs."""
    how: dict[str, Any] = {"encoding": encoding, "newline": newline}
    if file is not None:
        with (gzip.open if file.name.endswith(".gz") else open)(file, "rt", **how) as opened:
            yield opened
        return
    if sys.stdin is None:
        raise UsageError("standard input is closed; pipe rows into it, or name a file")
    text = io.TextIOWrapper(sys.stdin.buffer, **how)
    try:
        yield text
    finally:
        text.detach()  # else it would close standard input


def _by_columns(row: dict[str, Any]) -> bool:
    """Return whether a row is a table: in each of its fields the same numbers, as an index, lead to values."""
    indices = [tuple(value) if isinstance(value, dict) else () for value in row.values()]
    return len(set(indices)) == 1 and bool(indices[0]) and all(key.isdecimal() for key in indices[0])


def _json_lines(text: str | Iterable[str], name: str, problems: list[str]) -> Iterator[tuple[int, Any]]:
    for line in json_lines(text):
        if isinstance(line.error, json.JSONDecodeError):
            problems.append(f"{name} row {line.number} is no JSON: {line.error.msg}, column {line.error.colno}")
        elif line.error is not None:
            problems.append(f"{name} row {line.number}: {line.error}")
        else:
            yield line.number, line.value


def unlabelled_rows(
    file: Path | None, problems: list[str], sheet: str | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the numbered rows to answer of a file, in any of the formats, or of standard input, as JSON lines.

    One row after another is in memory, but for a JSON file that is one list. What is wrong goes to ``problems``.

    Args:
        sheet: of an XLSX file; the first where None.

    Raises:
        UsageError: there is no such file.
    """
    name = file.name if file else "standard input"
    if file is not None and file.is_dir():
        raise UsageError(f"{file} is a folder, and a file of rows is wanted; name one in it")
    if file is not None and file.is_file() and (why := _unread(_judged(file))):  # a pipe is called as it likes
        problems.append(Ended(f"{name}: {why}"))
        return
    ending = _ending(_judged(file)) if file else "jsonl"
    try:
        yield from _rows_of(file, ending, name, problems, Reading(sheet=sheet))
    except FileNotFoundError as error:
        raise UsageError(f"{file} cannot be read: {reason(error)}{nearest(file) if file else ''}") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        problems.append(Ended(f"{name} cannot be read: {first_line(error)[:200]}"))
