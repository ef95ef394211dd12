"""Files and folders that no reader ever sees half of, and JSON that may come from strangers."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
        ValueError: it is none, is nested without end, or has half a character, which no file and no page could hold.
    """
    try:
        values = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(values, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("half a character, as \\ud83d alone") from None
    return values
