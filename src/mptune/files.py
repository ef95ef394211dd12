"""Files and folders that no reader ever sees half of; JSON and YAML that may come from strangers; digests."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mptune.errors import ArtifactError, ConfigError, UsageError, reason


def refuse_existing(folder: Path) -> None:
    """Raise ArtifactError where a folder stands already: what somebody made is never written over."""
    if folder.exists():
        raise ArtifactError(f"{folder} exists already; remove it or choose another name")


def refuse_lost(file: Path, option: str) -> None:
    """Raise UsageError where a file has no folder to stand in, which is said before the work and not after it."""
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for {option} {file.name}; make it first")


def beside(folder: Path, name: str) -> Path:
    """Return what a name in a file of a folder means: a path relative to it, an absolute one, or one from ``~``."""
    return folder / os.path.expanduser(name)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Make a folder whose files ``write`` creates, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(scratch)
        scratch.chmod(0o755)  # mkdtemp made it private
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, in UTF-8, whole or not at all; what stood there stays where it cannot be written."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def parsed(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is none, is nested without end, has a key twice, of which one would hide the other, or has half
            a character, which no file and no page could hold.
    """
    try:
        values = json.loads(text, object_pairs_hook=_each_once)
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
        key = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        held = " and ".join(repr(value)[:40] for name, value in pairs if name == key)
        raise ValueError(f"{key!r} stands twice, with {held}; one would hide the other")
    return values


@dataclass(frozen=True)
class JsonLine:
    """A line of JSON: its value, or the error why it has none."""

    number: int  # from 1; blank lines count too
    text: str
    value: Any = None
    error: ValueError | None = None


def json_lines(text: str) -> Iterator[JsonLine]:
    """Yield the lines of a text that holds a JSON value in each; blank ones are passed over."""
    # Not splitlines: a JSON text may hold the separators of Unicode as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield JsonLine(number, line, parsed(line))
        except ValueError as error:
            yield JsonLine(number, line, error=error)


def json_object(file: Path) -> dict[str, Any] | None:
    """Return the object that a JSON file of ours holds; None where it holds anything else."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
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


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        ConfigError: no such file, no YAML, or not a mapping.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - BaseLoader makes text only
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read ({reason(error)})"]) from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(str(path), [f"is not valid YAML{line}: {error.problem}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [f"is not valid YAML: {error}"]) from None
    if not isinstance(values, dict):
        got = "nothing" if not values else "a list" if isinstance(values, list) else repr(values)
        raise ConfigError(str(path), [f"wants `field: value` lines; got {got}"])
    return values
