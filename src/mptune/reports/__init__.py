"""A run's results as one page that needs no network: `reading` → `findings` → `charts` → `pages`."""

from pathlib import Path

from mptune.errors import UsageError
from mptune.files import write_file
from mptune.reports.pages import claims, page
from mptune.reports.reading import read_published, read_run
from mptune.results import FILES


def write_report(folder: Path, out: Path) -> list[str]:
    """Write the page of a run's folder, and return its headlines.

    Raises:
        ResultsError: the folder's results are missing or damaged.
        UsageError: the page cannot be written where it should be.
    """
    run = read_run(folder)
    if out.resolve() in [(folder / name).resolve() for name in FILES]:
        raise UsageError(f"{out} holds the results themselves; choose another --out")
    text = page(run, read_published())
    try:
        if out.exists() and not out.is_file():  # a pipe or a terminal; of a folder, the system says what is wrong
            out.write_text(text, encoding="utf-8")
        else:
            write_file(out.resolve(), text)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); choose another --out") from None
    return [claim.headline for claim in claims(run)]
