"""Results as a page that needs no network and as Markdown: `reading` → `findings` → `page` or `markdown`.

The page alone needs the libraries of the `report` extra, and so is imported when it is asked for.
"""

from pathlib import Path

from mptune.comparison.report.reading import read_folder, read_published
from mptune.comparison.results import FILES
from mptune.errors import UsageError
from mptune.files import write_file


def write_report(folder: Path, out: Path) -> list[str]:
    """Write the page of a folder of results, and return its headlines.

    Raises:
        MissingExtraError: the libraries that draw it are not installed.
        ResultsError: the folder's results are missing or damaged.
        UsageError: the page cannot be written where it should be.
    """
    from mptune.comparison.report.page import claims, page

    results = read_folder(folder)
    if out.resolve() in [(folder / name).resolve() for name in FILES]:
        raise UsageError(f"{out} holds the results themselves; choose another --out")
    text = page(results, read_published())
    try:
        if out.exists() and not out.is_file():  # a pipe or a terminal; of a folder, the system says what is wrong
            out.write_text(text, encoding="utf-8")
        else:
            write_file(out.resolve(), text)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); choose another --out") from None
    return [claim.headline for claim in claims(results)]
