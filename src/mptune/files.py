"""Files and folders that no reader ever sees half of; JSON and YAML that may come from strangers; digests."""

import contextlib
import difflib
import hashlib
import itertools
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from mptune.errors import ConfigError, UsageError, first_line, reason

LARGEST_YAML = 300_000  # characters; reading more would take seconds
DEEPEST_YAML = 50
MOST_DIGITS = 4_300  # of a whole number in JSON: as many as Python turns into one
MOST_NAMES = 1000  # of a folder, among which the one that is meant is looked for
SCRATCH = ".part"  # ends the hidden name of what is being written


def refuse_existing(folder: Path) -> Path:
    """Return where a new folder will stand, links followed; what somebody made is never written over.

    Raises:
        UsageError: it stands already.
    """
    real = followed(folder)
    if real.exists():
        raise UsageError(f"{folder} exists already; remove it or choose another name")
    return real


def followed(path: Path) -> Path:
    """Return the place that a path means, absolute, with every link followed; it need not exist.

    Raises:
        UsageError: no file system has such a name.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # a NUL, or half a character
        raise UsageError(f"{str(path)!r} is no path ({first_line(error)}); name another") from None


def refuse_lost(file: Path, option: str) -> None:
    """Raise UsageError where a file has no folder to stand in, which is said before the work and not after it."""
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for {option} {file.name}; make it first")


def nearest(path: Path) -> str:
    """Return what to add to a message on a file that is not there: the one in its folder that may be meant."""
    with contextlib.suppress(OSError, ValueError):
        names = {each.name.casefold(): each.name for each in itertools.islice(path.parent.iterdir(), MOST_NAMES)}
        near = difflib.get_close_matches(path.name.casefold(), names, 1)
        return f". Did you mean {names[near[0]]}?" if near and names[near[0]] != path.name else ""
    return ""


def beside(folder: Path, name: str) -> Path:
    """Return what a name in a file of a folder means: a path relative to it, an absolute one, or one from ``~``."""
    return folder / os.path.expanduser(name)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Make a folder whose files ``write`` creates, whole or not at all."""
    folder = followed(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}-", dir=folder.parent))
    try:
        write(scratch)
        scratch.chmod(0o755)  # mkdtemp made it private
        settle(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, in UTF-8, whole or not at all; what stood there stays where it cannot be written.

    What is written first has a name that nobody can foresee, and is no link: in a folder that others may write to, a
    link in its place would lead anywhere.
    """
    scratch = path.with_name(f".{secrets.token_hex(8)}{SCRATCH}")
    try:
        with open_new(scratch) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            scratch.chmod(stat.S_IMODE(path.stat().st_mode))
        settle(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def settle(made: Path, place: Path) -> None:
    """Give a file or folder its final name, which survives a power failure."""
    made.replace(place)
    _sync_folder(place.parent)


def open_new(path: Path, *, append: bool = False) -> IO[bytes]:
    """Open a file that must be new, or (``append``) may be there; a link is never followed.

    Raises:
        OSError: it is there already, or is a link.
    """
    how = os.O_APPEND if append else os.O_EXCL
    number = os.open(path, os.O_RDWR | os.O_CREAT | how | getattr(os, "O_NOFOLLOW", 0), 0o666)
    return os.fdopen(number, "ab+" if append else "wb")


def append_line(path: Path, line: str) -> None:
    """Add a line to a file of a run."""
    with open_new(path, append=True) as file:
        file.write(line.encode() + b"\n")


def is_scratch(path: Path) -> bool:
    """Return whether a file is what a killed process had begun to write."""
    return path.name.startswith(".") and path.name.endswith(SCRATCH)


def clean(folder: Path) -> None:
    """Remove what killed processes had begun to write, from a folder that nobody else writes to."""
    for path in folder.glob(f".*{SCRATCH}"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk; some systems and file systems cannot."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def parsed(text: str, *, finite: bool = False) -> Any:
    """Return the value of a JSON text.

    Args:
        finite: whether NaN, which is no JSON and which Python writes all the same, is refused, and what is too large.

    Raises:
        ValueError: it is none, is nested without end, has a key twice, of which one would hide the other, a number of
            more digits than Python reads, or half a character, which no file and no page could hold.
    """
    real = _finite if finite else None
    try:
        values = json.loads(text, object_pairs_hook=_each_once, parse_int=_whole, parse_float=real, parse_constant=real)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(values, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("half a character, as \\ud83d alone") from None
    return values


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        times = Counter(key for key, _ in pairs)
        key = next(key for key, _ in pairs if times[key] > 1)
        held = " and ".join([repr(value)[:40] for name, value in pairs if name == key][:2])
        raise ValueError(f"{key!r} stands twice, with {held}; one would hide the other")
    return values


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits, and may have {MOST_DIGITS:,}")
    return int(digits)


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:40]} is no finite number")
    return value


@dataclass(frozen=True)
class JsonLine:
    """A line of JSON: its value, or the error why it has none."""

    number: int  # from 1; blank lines count too
    text: str
    value: Any = None
    error: ValueError | None = None


def json_lines(text: str | Iterable[str]) -> Iterator[JsonLine]:
    """Yield the lines of a text, or of an open file, that hold a JSON value each; blank ones are passed over."""
    # Not splitlines: a JSON text may hold the separators of Unicode as they are.
    for number, line in enumerate(text.split("\n") if isinstance(text, str) else text, start=1):
        line = line.rstrip("\n")
        if not line.strip():
            continue
        try:
            yield JsonLine(number, line, parsed(line))
        except ValueError as error:
            yield JsonLine(number, line, error=error)


def json_object(file: Path) -> dict[str, Any] | None:
    """Return the object that a JSON file of ours holds; None where it holds anything else."""
    try:
        values = parsed(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def digest(content: str | bytes, letters: int = 32) -> str:
    """Return the first letters of a content's SHA-256, by which equal contents are known."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:letters]


class _Loader(yaml.BaseLoader):
    """YAML without implicit types, and without silently dropped duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key!r} stands twice", problem_mark=key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep=deep)


def _refuse_depth(text: str) -> None:
    """Raise YAMLError where a text is nested so deeply that reading all of it would take long, and fail."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_YAML:
            raise yaml.YAMLError("nested too deeply")


def _refuse_unfolding(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """Return how many characters and values a node has where all that is named twice is written twice.

    Raises:
        YAMLError: more than a file may have, or without end.
    """
    if node is None:
        return 0
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = LARGEST_YAML + 1  # found again before it is known, it holds itself
    size = 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        size += sum(_refuse_unfolding(each, sizes) for each in (child if isinstance(child, tuple) else (child,)))
        if size > LARGEST_YAML:
            raise yaml.YAMLError(f"its anchors unfold to more than {LARGEST_YAML:,} values; write them out")
    sizes[id(node)] = size
    return size


def yaml_text(values: dict[str, Any]) -> str:
    """Return a mapping as YAML, in its own order, its letters as they are."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def _where(error: yaml.MarkedYAMLError, text: str) -> str:
    """Return where a YAML text is wrong, and what is: of what is not closed the place where it opens."""
    if error.problem_mark is None:
        return f": {error.problem}"
    line, opened, context = error.problem_mark.line, error.context_mark, error.context or ""
    where = f" in line {line + 1}"
    if re.match(r"[ ]*\t", "".join(text.split("\n")[line : line + 1])):
        return f"{where}: it begins with a tab; use blanks, not tabs"
    if opened is not None and "a quoted scalar" in context:
        return f" in line {opened.line + 1}: a quote opens there and is not closed"
    if opened is not None and opened.line < line and "flow" in context:
        return f"{where}: {error.problem}; its bracket opens in line {opened.line + 1}"
    return f"{where}: {error.problem}"


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        ConfigError: no such file, no YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > LARGEST_YAML:
            raise yaml.YAMLError(f"it has {len(text):,} characters, and may have {LARGEST_YAML:,}")
        _refuse_depth(text)
        node = yaml.compose(text, Loader=_Loader)
        _refuse_unfolding(node, {})
        values = yaml.load(text, Loader=_Loader)  # noqa: S506
        if "\\" in text:  # only an escape can name half a character
            json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError(str(path), ["has half a character, as \\ud83d alone, which no file could hold"]) from None
    except IsADirectoryError:
        raise ConfigError(str(path), ["is a folder, and a YAML file is wanted; name one in it"]) from None
    except (OSError, UnicodeDecodeError) as error:
        near = nearest(path) if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(str(path), [f"cannot be read ({reason(error)}){near}"]) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(str(path), [f"is not valid YAML{_where(error, text)}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [f"is not valid YAML: {first_line(error)}"]) from None
    except ValueError as error:  # a NUL in the path
        raise ConfigError(str(path), [f"cannot be read ({first_line(error)})"]) from None
    if not isinstance(values, dict):
        got = "nothing" if not values else "a list" if isinstance(values, list) else repr(values)
        raise ConfigError(str(path), [f"wants `field: value` lines; got {got}"])
    return values
