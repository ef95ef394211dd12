"""Any number of rows to answers in a file: checked first, in bounded memory, gone on with after a kill.

A row that cannot be answered refuses them all, or stands aside with the reason while the others are answered.

Answers to a file of rows stand in ``<output>.<hash>.partial`` until all are there; the hash is of the rows, the
prompts, their calibrations and the settings, so that what is gone on with is the same work. Devices, pipes and standard
output take answers as they come.
"""

import difflib
import errno
import glob
import hashlib
import itertools
import json
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from filelock import FileLock, Timeout

from mptune.answers.sheets import TABLES, is_table, refuse_ending, refuse_too_many, write_table
from mptune.errors import DataError, UsageError
from mptune.files import SCRATCH, followed, open_new, refuse_lost, settle
from mptune.progress import goes_on, step_progress
from mptune.tasks.rows import unlabelled_rows
from mptune.tasks.tables import Ended
from mptune.terminal import say_bytes, visible

if TYPE_CHECKING:
    from mptune.answers.prediction import Predictor
    from mptune.tasks.task import Task

BATCHES = 32  # batches whose rows are in memory at a time; a kill loses no more answers than theirs
MOST_PROBLEMS = 1000  # that are looked for before the rows are given back
ASIDE = "error"  # in the place of an answer: why there is none
ASIDE_ENDING = ".aside.jsonl"

logger = logging.getLogger(__name__)

Numbered = Iterable[tuple[int, Mapping[str, Any]]]


def check_places(source: Path | None, output: Path | None, *, aside: bool = False) -> None:
    """Raise UsageError where rows cannot be read or answers not be written, which is said before the work."""
    files = source is not None and source.is_file() and output is not None and (output.is_file() or not output.exists())
    if aside and not files:
        raise UsageError("--aside wants rows in a file, and a file for their answers, beside which the others stand")
    if source is not None:
        followed(source)
        if not os.access(source, os.R_OK) or source.is_dir():
            why = "Is a directory" if source.is_dir() else "Permission denied" if source.exists() else ""
            raise UsageError(f"{source} cannot be read: {why or 'No such file or directory'}")
    if output is None:
        return
    followed(output)
    if is_table(output) and (source is None or not source.is_file()):
        raise UsageError(
            f"{output} is to be a table, which wants the rows in a file; name it, or JSON lines as --output"
        )
    if is_table(output) and output.exists() and not output.is_file():
        raise UsageError(f"{output} is no file, and a table cannot go there; name a file, or one of JSON lines")
    if output.is_dir():
        raise UsageError(f"--output wants a file; {output} is a folder")
    refuse_lost(output, "--output")
    if output.is_file() or not output.exists():  # a device or a pipe may have any name
        refuse_ending(output)
    if source is not None and output.is_file() and output.samefile(source):
        raise UsageError(f"{output} holds the rows themselves, which answers would replace; choose another --output")
    if not os.access(output if output.exists() else followed(output).parent, os.W_OK):
        raise UsageError(f"{output} cannot be written; give --output a place that can be")
    real = followed(output)
    if not any(real.parent.glob(f"{glob.escape(real.name)}.*.partial")):  # else `_answers` knows whose they are
        _refuse_there(output)
        if aside:
            _refuse_there(aside_of(output))


def _refuse_there(output: Path) -> None:
    """Raise UsageError where a file holds something already: answers that somebody corrected by hand may be the last.

    Nothing in it tells which prompt and rows it came from, so that a finished call is refused too.
    """
    if not output.is_file() or not output.stat().st_size:  # an empty one may be a place that was made for answers
        return
    problems: list[str] = []
    rows = sum(1 for _ in unlabelled_rows(output, problems))
    held = f", with {rows} {'rows' if rows > 1 else 'row'}" if rows and not problems else ""
    raise UsageError(f"{output} is there already{held}; remove it, or name another with --output")


def check_head(source: Path | None, tasks: "Sequence[Task]") -> None:
    """Raise DataError where a file has no rows, or is a table without the columns that its task reads.

    It is told by the first row, before any model is loaded; what comes from a pipe is read only once.
    """
    if source is None or not source.is_file():
        return
    problems: list[str] = []
    columns: dict[str, None] = {}
    lacking: Sequence[str] = ()
    for _, row in unlabelled_rows(source, problems):
        columns |= dict.fromkeys(row)
        lacking = _lacking(source, columns, tasks)
        if not lacking:
            return
    if not columns and not problems:
        _refuse_empty(source, tasks)
    elif lacking:
        near = {name.casefold(): name for name in columns}
        found = [near[c] for f in lacking for c in difflib.get_close_matches(f.casefold(), near, n=1)]
        meant = f" (did you mean {', '.join(map(repr, found))}?)" if found else ""
        missing = ", ".join(map(repr, lacking))
        raise _unanswerable(tasks, source, [f"it has no column {missing}{meant}; its columns are {', '.join(columns)}"])


def _lacking(source: Path, columns: Iterable[str], tasks: "Sequence[Task]") -> list[str]:
    """Return which columns of a table are not there; of several tasks, or prepared rows, none is known to be."""
    table = source.name.lower().removesuffix(".gz").rpartition(".")[2] in TABLES
    if not table or len(tasks) != 1 or tasks[0].prepare is not None:
        return []
    return [field for field in tasks[0].text_fields if field not in columns]


def _refuse_empty(source: Path, tasks: "Sequence[Task]") -> NoReturn:
    raise _unanswerable(tasks, source, [f"{source.name} has no rows"])


def aside_of(output: Path) -> Path:
    """Return the file of the rows that could not be answered, beside that of the answers."""
    return output.with_name(f"{output.name}{ASIDE_ENDING}")


def answer_file(
    predictor: "Predictor",
    source: Path | None,
    output: Path | None,
    *,
    probabilities: bool = False,
    aside: bool = False,
    title: str = "",
) -> int:
    """Write an answer to every row of a file, or of standard input, in the rows' order; return how many there are.

    Args:
        source: JSON lines, JSON, CSV, TSV, XLSX or Parquet; standard input, as JSON lines, where None.
        output: a file, which appears when all is answered: a table of rows and answers where its name is that of one,
            else JSON lines; or a device or pipe. Standard output where None.
        probabilities: whether a table has a column for each label word.
        aside: whether a row that cannot be answered keeps its place with an empty answer, and stands with the reason
            in the file that `aside_of` names; of files of rows only.
        title: what the bar says; the file's name without it.

    Raises:
        DataError: every row that cannot be answered, where they do not stand aside, or where no other is there; of a
            file, before any is, and where it has none. Of a pipe, in its turn.
        UsageError: another process is answering into that file, or it holds something already.
    """
    checked = source is not None and source.is_file()
    identity = None
    total, columns = 0, list[str]()
    if checked and source is not None:
        total, columns = _check(predictor, source, aside=aside)
        refuse_too_many(output, total)
        identity = identity_of(predictor, source, aside=aside)
    size = BATCHES * predictor.config.batch_size
    words = tuple(dict.fromkeys(w for t in predictor.tasks for w in t.label_words)) if probabilities else None

    laid_out = _table_of(predictor, source, output, columns, words) if source and output and is_table(output) else None
    finished = partial(_set_aside, source=source, file=aside_of(output)) if aside and source and output else None
    title = title or (source.name if source else "standard input")
    with (
        _answers(output, identity, size, finished, laid_out) as (done, write),
        step_progress(title, total, done, shown=bool(total)) as progress,
    ):
        goes_on(title, done, total, "row")
        began, first, problems = time.monotonic(), done, list[str]()
        rows = itertools.islice(unlabelled_rows(source, problems), done, None)
        while (portion := list(itertools.islice(rows, size))) or (problems and not aside):
            if not checked:
                problems += _problems(predictor, portion)
            if problems and not aside:
                raise _unanswerable(predictor.tasks, source, problems)
            answers = _answered(predictor, portion, aside=aside)
            lines = [json.dumps(answer, ensure_ascii=False) for answer in answers]
            write("".join(f"{visible(line)}\n" for line in lines).encode())
            done += len(portion)
            if progress.drawn:
                progress.show(done, rows_a_second=(done - first) / (time.monotonic() - began))
        return done


def _table_of(
    predictor: "Predictor", source: Path, output: Path, columns: Sequence[str], words: Sequence[str] | None
) -> Callable[[Path, Path], None]:
    """Return what writes a file of answers and its rows as the table that the output's name promises."""

    def laid_out(answers: Path, scratch: Path) -> None:
        with answers.open(encoding="utf-8") as lines:
            rows = (row for _, row in unlabelled_rows(source, []))
            pairs = zip(rows, map(json.loads, lines), strict=True)
            ending = output.suffix.lower().removeprefix(".")
            write_table(scratch, ending, pairs, columns, words, source, abstains=predictor.abstains)

    return laid_out


def _answered(predictor: "Predictor", portion: Sequence[tuple[int, Mapping[str, Any]]], *, aside: bool) -> list[Any]:
    """Return the answers to rows as they are written; where a row may stand aside, why it cannot be answered."""
    why = [next(_problems(predictor, [numbered]), None) if aside else None for numbered in portion]
    rows = [row for (_, row), reason in zip(portion, why, strict=True) if reason is None]
    answers = iter(predictor.predict(rows) if rows else [])
    return [next(answers).as_dict() if reason is None else {"answer": None, ASIDE: reason} for reason in why]


def _set_aside(answers: Path, source: Path, file: Path) -> None:
    """Write the rows that were not answered, each with the reason, and what could not be read as a row at all."""
    problems: list[str] = []
    scratch, count = file.with_name(f".{secrets.token_hex(8)}{SCRATCH}"), 0
    try:
        with answers.open(encoding="utf-8") as lines, open_new(scratch) as opened:
            for (_, row), answer in zip(unlabelled_rows(source, problems), map(json.loads, lines), strict=True):
                if reason := answer.get(ASIDE):
                    count += 1
                    opened.write(f"{json.dumps({'reason': reason, 'row': row}, default=str)}\n".encode())
            opened.writelines(f"{json.dumps({'reason': problem})}\n".encode() for problem in problems)
        count += len(problems)
        if count:
            settle(scratch, file)
            rows = "1 row" if count == 1 else f"{count} rows"
            logger.warning("%s of %s: no answer, and the reason in %s", rows, source.name, file)
    finally:
        scratch.unlink(missing_ok=True)


def _check(predictor: "Predictor", source: Path, *, aside: bool) -> tuple[int, list[str]]:
    """Return how many rows a file has, and which columns any of them has.

    Raises:
        DataError: every row that cannot be answered, but where they stand aside and there are others; what ends too
            early; or none is there.
    """
    problems: list[str] = []
    count, wrong, columns = 0, 0, dict[str, None]()
    for numbered in unlabelled_rows(source, problems):
        count += 1
        columns |= dict.fromkeys(numbered[1])
        found = list(_problems(predictor, [numbered]))
        wrong += len(found)
        problems += found if len(problems) < MOST_PROBLEMS else []
        if len(problems) >= MOST_PROBLEMS and not aside:
            break
    if problems and not (aside and wrong < count and not any(isinstance(each, Ended) for each in problems)):
        raise _unanswerable(predictor.tasks, source, problems)
    if not count:
        _refuse_empty(source, predictor.tasks)
    return count, list(columns)


def _problems(predictor: "Predictor", rows: Numbered) -> Iterator[str]:
    for number, row in rows:
        try:
            predictor.rendered(row)
        except ValueError as error:
            yield f"row {number}: {error}"


def _unanswerable(tasks: "Sequence[Task]", source: Path | None, problems: Sequence[str]) -> DataError:
    names = ", ".join(task.name for task in tasks)
    return DataError(names, problems, f"the rows of {source.name if source else 'standard input'} cannot be answered:")


def identity_of(predictor: "Predictor", source: Path, *, aside: bool = False) -> str:
    """Return what is equal where the same work is done: the predictor's identity, and a hash of the rows."""
    with source.open("rb") as file:
        rows = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{predictor.identity}{rows}{'aside' if aside else ''}"


@contextmanager
def _answers(
    output: Path | None,
    identity: str | None,
    portion: int,
    finished: Callable[[Path], None] | None,
    laid_out: Callable[[Path, Path], None] | None,
) -> Iterator[tuple[int, Callable[[bytes], None]]]:
    """Yield how many answers stand already, whole portions of them, and what takes more; then put them in place.

    Args:
        identity: of the work; None where it cannot be gone on with, since its rows come from a pipe.
        finished: is given the file of the answers once all are there.
        laid_out: makes another file of that of the answers, which takes its place; None where they stay JSON lines.
    """
    if output is None:
        yield 0, say_bytes
        return
    real = followed(output)
    if (output.exists() and not output.is_file()) or not os.access(real.parent, os.W_OK):
        _refuse_there(output)
        with output.open("wb") as file:  # what stands there stays, and takes answers as they come
            yield 0, _kept(file)
        return
    name = hashlib.sha256(identity.encode()).hexdigest()[:12] if identity else secrets.token_hex(6)
    waiting = real.with_name(f"{real.name}.{name}.partial")
    lock = FileLock(waiting.with_name(f".{waiting.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"another process is answering into {output}; wait for it, or name another file") from None
    try:
        if not waiting.exists():  # else a call that was killed on its way into that file goes on
            _refuse_there(output)
        with open_new(waiting, append=True) as file:
            yield _whole_lines(file, portion), _kept(file)
        if finished is not None:
            finished(waiting)
        if laid_out is None:
            _replace(waiting, real)
            return
        scratch = real.with_name(f".{secrets.token_hex(8)}{SCRATCH}")
        try:
            laid_out(waiting, scratch)
            _replace(scratch, real)
        finally:
            scratch.unlink(missing_ok=True)
        waiting.unlink()
    finally:
        if identity is None or (waiting.exists() and not waiting.stat().st_size):
            waiting.unlink(missing_ok=True)
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _kept(file: IO[bytes]) -> Callable[[bytes], None]:
    """Return what writes to a file and sees to it that it stands on the disk, where there is one."""

    def write(lines: bytes) -> None:
        file.write(lines)
        file.flush()
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fsync(file.fileno())

    return write


def _whole_lines(file: IO[bytes], portion: int) -> int:
    """Cut a file behind the last portion of its answers that is whole; return how many stand before."""
    file.seek(0)
    ends = [0]
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n") or not line.startswith(b"{"):  # half a line; or zeros, after a power failure
            break
        ends[-1] += len(line)
        if number % portion == 0:
            ends.append(ends[-1])
    whole = len(ends) - 1
    file.truncate(ends[whole - 1] if whole else 0)
    file.seek(0, os.SEEK_END)
    return whole * portion


def _replace(partial: Path, real: Path) -> None:
    """Put answers in a file's place; into the file itself, where it cannot be replaced, as one that is mounted."""
    try:
        if real.exists():
            partial.chmod(stat.S_IMODE(real.stat().st_mode))
        settle(partial, real)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        with partial.open("rb") as answers, real.open("wb") as file:
            shutil.copyfileobj(answers, file)
            _kept(file)(b"")
        partial.unlink()
