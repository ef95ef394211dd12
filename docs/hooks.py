"""What the site has beside docs/: pages made of the project's other files, Markdown copies, and llms.txt.

A hook of mkdocs (mkdocs.yml). Documents link to each other as they lie in the repository, so that they can be read
there; here such links are turned to where the site has the same page or file.
"""

import json
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

logger = logging.getLogger("mkdocs.hooks.site")
ROOT = Path(__file__).parents[1]

# Documents outside docs/, and the page that each becomes.
PAGES = {
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "results/README.md": "results/committed.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "src/mptune/samples/README.md": "project/samples.md",
    "README.md": "index.md",
}
FOLDERS = {"docs/decisions": "decisions/index.md", "results": "results/committed.md", "docs": "index.md"}
PAGES_IN_ORDER: list[Page] = []
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> None:
    """Let the navigation have every decision."""
    (project,) = (part["Project"] for part in config.nav or [] if "Project" in part)
    (entry,) = (entry for entry in project if "Decisions" in entry)
    entry["Decisions"] = ["decisions/index.md", *(f"decisions/{file.name}" for file in decisions())]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that docs/ does not hold."""
    for source, page in PAGES.items():
        if source != "README.md":
            add(files, config, page, (ROOT / source).read_text(encoding="utf-8"))
    add(files, config, "decisions/index.md", decisions_page())
    notebook, _ = MarkdownExporter().from_filename(str(ROOT / "docs" / "first_hour.ipynb"))
    add(files, config, "first_hour.md", notebook)
    for table in sorted((ROOT / "results").rglob("results.md")):
        files.append(kept(table, config))
    reports = reports_of(Path(str(config.extra["reports"])))
    for name, file in reports.items():
        files.append(File.generated(config, f"results/reports/{name}.html", abs_src_path=str(file.resolve())))
    add(files, config, "results/reports.md", reports_page(reports))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between the repository's files into links between the site's; keep the text for the copy."""
    made_of = {name: source for source, name in PAGES.items() if source != "README.md"}  # docs/index.md is its own
    source = made_of.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(lambda m: linked(m, source, page, config, files), part) for part in parts[::2]]
    text = "".join(parts)
    if page.file.src_uri == "reference/files.md":
        text += schemas()
    page.meta["copy"] = text
    return text


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put charts of the reports where a page has ``<!-- chart NAME NUMBER -->``."""
    folder = ROOT / str(config.extra["reports"])

    def chart(found: re.Match[str]) -> str:
        report = folder / f"{found[1]}.html"
        text = report.read_text(encoding="utf-8") if report.is_file() else ""
        figures = re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
        if int(found[2]) >= len(figures):
            logger.warning("%s wants chart %s of %s: run `make reports`", page.file.src_uri, found[2], report)
            return ""
        return f'<div class="chart">{figures[int(found[2])]}</div>'

    return re.sub(r"<!-- chart (\S+) (\d+) -->", chart, html)


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> None:
    """Remember the pages in the order of the navigation."""
    PAGES_IN_ORDER[:] = nav.pages


def on_post_build(config: MkDocsConfig) -> None:
    """Write the Markdown copies, and llms.txt, which lists them."""
    contents, section = [f"# {config.site_name}", "", f"> {config.site_description}", ""], None
    for page in PAGES_IN_ORDER:
        copy = Path(config.site_dir) / page.file.src_uri
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(page.meta["copy"], encoding="utf-8")
        if page.parent and page.parent != section:
            section = page.parent
            contents += ["", f"## {section.title}", ""]
        contents.append(f"- [{page.title}]({page.file.src_uri})")
    (Path(config.site_dir) / "llms.txt").write_text("\n".join(contents) + "\n", encoding="utf-8")


# -- pages ------------------------------------------------------------------------------------------------------------


def add(files: Files, config: MkDocsConfig, page: str, text: str) -> None:
    """Add a page whose text is made here."""
    files.append(File.generated(config, page, content=text))


def kept(file: Path, config: MkDocsConfig) -> File:
    """Return a file of the repository as a file of the site, under ``files/``."""
    name = f"files/{file.relative_to(ROOT).as_posix()}"
    return File.generated(config, name + (".txt" if name.endswith(".md") else ""), abs_src_path=str(file))


def linked(found: re.Match[str], source: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a link as it reads on the site; only its text where the site has nothing to lead to."""
    text, target, anchor = found[1], found[2], found[3] or ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    name = PAGES.get(path) or FOLDERS.get(path) or path.removeprefix("docs/")
    if files.get_file_from_path(name) is None and (ROOT / path).is_file():
        file = kept(ROOT / path, config)
        name = file.src_uri
        if files.get_file_from_path(name) is None:
            files.append(file)
    if files.get_file_from_path(name) is None and not name.endswith(".md"):  # a missing page is an error of mkdocs
        return text
    return f"[{text}]({posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"


def decisions() -> list[Path]:
    """Return the decisions' files, in order."""
    return sorted((ROOT / "docs" / "decisions").glob("0*.md"))


def decisions_page() -> str:
    """Return the list of the decisions."""
    lines = ["# Decisions", "", "Why it is built so, one choice a page: context, decision, consequences.", ""]
    for file in decisions():
        title = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({file.name})")
    return "\n".join(lines) + "\n"


def reports_of(folder: Path) -> dict[str, Path]:
    """Return the reports that `make reports` built, by the name of their results."""
    reports = {file.stem: file for file in sorted((ROOT / folder).glob("*.html"))}
    if not reports:
        logger.warning("no reports in %s: run `make reports`", folder)
    return reports


def reports_page(reports: dict[str, Path]) -> str:
    """Return the list of the reports, each with its first headline."""
    lines = [
        "# Reports with charts",
        "",
        "Each page is what `mptune report` makes of committed results: verdict, scores, curves, similarities of tasks,",
        "alarms. One file, no scripts; it opens without a network.",
        "",
    ]
    for name, file in reports.items():
        headline = re.search(r'class="verdict"><strong>(.*?)</strong>', file.read_text(encoding="utf-8"))
        lines.append(f"- [{name}](reports/{name}.html)" + (f": {headline[1]}" if headline else ""))
    return "\n".join(lines) + "\n"


def schemas() -> str:
    """Return every field of a task file and of a recipe, as `mptune schema` prints them."""
    from mptune.comparison.recipe import Recipe
    from mptune.tasks.task import Task

    lines: list[str] = []
    shown: set[str] = set()
    for title, model in (("A task", Task), ("A recipe", Recipe)):
        schema = model.model_json_schema()
        lines += ["", f"## {title}", "", *fields(schema)]
        for name, part in schema.get("$defs", {}).items():
            if part.get("type") == "object" and name not in shown:
                shown.add(name)
                lines += ["", f"### {name}", "", part.get("description", "").partition("\n")[0], "", *fields(part)]
    return "\n".join(lines) + "\n"


def fields(schema: dict[str, Any]) -> list[str]:
    """Return the fields of a schema as rows of a table."""
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        reason = " ".join(field.get("description", "").replace("|", "\\|").split())
        rows.append(f"| `{name}` | {kind(field)} | {default} | {reason} |")
    return rows


def kind(field: dict[str, Any]) -> str:
    """Return a field's type in a word or two."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(kind(each) for each in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {kind(field['items'])}" if "items" in field else "list"
    return {"null": "nothing", "object": "mapping"}.get(str(field.get("type")), str(field.get("type", "any")))
