"""The documents and their site: every code block runs, parses or compiles; the site builds, and asks for no network."""

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

import mptune
from mptune.cli import app
from mptune.comparison.recipe import recipe_model
from mptune.tasks.registry import load_task

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / folder / "README.md" for folder in ("results", "benchmarks")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(page, *found) for page in PAGES for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def blocks(language):
    """The code blocks of a language, as parameters named by page and number."""
    chosen = [(page, code) for page, tongue, code in BLOCKS if tongue == language]
    names = [page.relative_to(ROOT).as_posix() for page, _ in chosen]
    return pytest.mark.parametrize(
        ("page", "code"), chosen, ids=[f"{name}-{names[:i].count(name)}" for i, name in enumerate(names)]
    )


def test_every_block_says_its_language():
    for page, language, code in BLOCKS:
        assert language in ("bash", "python", "yaml", "text"), f"{page.name}: {code[:60]!r}"


@blocks("bash")
def test_a_command_exists_with_its_options(page, code, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()  # what documents call a reader's folder of rows
    monkeypatch.chdir(tmp_path)
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "mptune" in words and words[0] in ("mptune", "torchrun"):
            _parse(words[words.index("mptune") + 1 :])
        elif words:
            for part in " ".join(words).split(" && "):
                _check(part.split())


def _parse(words):
    """Let the command line itself read a command, without carrying it out."""
    command = typer.main.get_command(app)
    name, *arguments = words
    assert name in command.commands, name
    command.commands[name].make_context(name, arguments)


def _check(words):
    """See that what is no command of mptune is there all the same: a target, an extra, a program of the project."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), words
    elif words[:2] == ["pip", "install"]:
        extras = [extra for listed in re.findall(r"\[([\w,]+)\]", words[-1]) for extra in listed.split(",")]
        table = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert extras
        assert all(re.search(rf"^{extra} = \[", table, re.MULTILINE) for extra in extras), words
    elif words[0].endswith("python") and words[1].startswith("benchmarks/"):
        text = (ROOT / words[1]).read_text(encoding="utf-8") + (ROOT / "benchmarks/common.py").read_text("utf-8")
        assert all(f'"{option}"' in text for option in words[2:] if option.startswith("--")), words
    elif words[0] == "python" and words[1].startswith("recipes/"):
        assert (ROOT / words[1]).is_file(), words
    else:
        assert words[:3] == ["python", "-m", "venv"] or words[0] in (".", "cat"), words


@blocks("python")
def test_python_compiles_and_imports_public_names_only(page, code):
    compile(code, page.name, "exec")
    for module, names in re.findall(r"from (mptune\S*) import (.+)", code):
        assert module == "mptune"
        assert set(names.replace(" ", "").split(",")) <= set(mptune.__all__)
    for name, call in re.findall(r"\b(\w+)\(([^()]*)\)", code):
        if name in mptune.__all__ and inspect.isfunction(getattr(mptune, name)):
            known = inspect.signature(getattr(mptune, name)).parameters
            assert set(re.findall(r"\b(\w+)=", call)) <= set(known), call


@blocks("yaml")
def test_a_yaml_file_is_a_task_or_a_recipe(page, code, tmp_path):
    if "template:" in code:
        (tmp_path / "task.yaml").write_text(code)
        task = load_task(tmp_path / "task.yaml")
        row = dict.fromkeys(task.fields, "1")
        assert task.render(row).target
    else:
        assert recipe_model().read(yaml.safe_load(code), page.name).methods


@pytest.mark.embedded
def test_the_readme_s_python_prints_what_it_says():
    (code,) = [code for page, language, code in BLOCKS if page.name == "README.md" and language == "python"]
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert run.returncode == 0, run.stderr
    promised = int(re.findall(r"# (\d+); the bare model", code)[0])
    assert abs(int(run.stdout) - promised) <= 8  # on another processor, or with more threads, it rounds otherwise


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 110] == []


def test_the_table_in_the_readme_is_part_of_the_one_in_the_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme[readme.index("## What it scores") :].splitlines() if line.startswith("| ")]
    table = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert len(rows) >= 8
    assert all(row in table for row in rows)


def test_the_reference_has_every_public_name():
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: mptune\.(\w+)$", page, re.MULTILINE)) == sorted(mptune.__all__)


def test_the_map_in_architecture_names_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\w+", text[text.index("src/mptune/") :].partition("```")[0]))
    package = ROOT / "src" / "mptune"
    modules = {path.stem for path in package.rglob("*.py") if not path.stem.startswith("__")}
    # The table of methods names the rivals.
    rivals = {path.stem for path in (package / "comparison" / "baselines").glob("*.py")}
    assert modules - rivals - named == set()


# -- the built site ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly, with one report in the place of all."""
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install 'mptune[site]'")
    folder = tmp_path_factory.mktemp("site")
    (folder / "reports").mkdir()
    (folder / "reports" / "small-fewshot.html").write_text(
        '<p class="verdict"><strong>MPT leads.</strong></p><figure>one</figure><figure>two</figure>'
    )
    (folder / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: {ROOT / 'docs'}\nsite_dir: {folder / 'site'}\n"
        f"hooks: [{ROOT / 'docs' / 'hooks.py'}]\nextra: {{reports: {folder / 'reports'}}}\n"
    )
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", str(folder / "mkdocs.yml")]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert run.returncode == 0, run.stderr
    return folder / "site"


@pytest.mark.slow
def test_the_site_has_its_pages_their_copies_and_a_list_of_them(site):
    listed = re.findall(r"\]\((.*?\.md)\)", (site / "llms.txt").read_text(encoding="utf-8"))
    assert listed[:2] == ["index.md", "tutorial.md"]
    assert {"results/reports.md", "project/architecture.md", "reference/files.md", "LOG.md"} <= set(listed)
    for copy in listed:
        assert (site / copy).is_file()
        assert (site / copy).with_suffix(".html").is_file()
    assert "MPT leads." in (site / "results" / "reports.html").read_text(encoding="utf-8")
    assert "<figure>two</figure>" in (site / "results.html").read_text(encoding="utf-8")
    assert "distill_weight" in (site / "reference" / "files.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_no_page_of_the_site_loads_anything_from_elsewhere(site):
    loads = re.compile(r"<(?:script|img|iframe|source)[^>]*\bsrc=\"?(https?:[^\"\s>]+)|<link[^>]*href=\"?(https?:\S+)")
    for page in site.rglob("*.html"):
        assert loads.findall(page.read_text(encoding="utf-8")) == [], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\"?https?:", style.read_text(encoding="utf-8")), style.name


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_the_site_in_a_browser_fits_searches_and_asks_for_no_network(site, width):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_context(viewport={"width": width, "height": 900}).new_page()
        asked = []
        page.on("request", lambda one: asked.append(one.url))
        for name in ("index", "tutorial", "results", "reference/python", "reference/files", "project/architecture"):
            page.goto((site / f"{name}.html").as_uri())
            wide, fits = page.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.clientWidth]",
            )
            assert wide <= fits, name
        if width > 1000:
            page.click(".md-search__input")
            page.keyboard.type("glossary", delay=30)
            page.wait_for_selector(".md-search-result__item", timeout=30_000)
        chromium.close()
    assert [address for address in asked if not address.startswith(("file:", "data:", "blob:"))] == []


def test_a_committed_result_has_no_page_beside_it():
    assert list((ROOT / "results").rglob("*.html")) == []
