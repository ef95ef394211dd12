"""The report in a real browser: wide and narrow, light and dark, on paper. Skipped, and says so, without one."""

from dataclasses import dataclass

import pytest

from mptune.comparison.report import write_report
from support import example_run
from support.chromium import ARGUMENTS, BROWSER, CONTRASTS, ENOUGH

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'mptune[dev]'")

WIDTHS = {"desktop": 1280, "phone": 360}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium"),
]


@dataclass(frozen=True)
class Opened:
    """A page in the browser, and every address that was asked for since it was opened."""

    page: object
    asked: list


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A full report in a file: two numbers of shots, a variant, everything that a page can show."""
    folder = tmp_path_factory.mktemp("report")
    methods = (*example_run.METHODS, "mpt-no-distillation")
    write_report(example_run.write(folder / "run", shots=(4, 16), seeds=2, methods=methods), folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in ("light", "dark")], ids="-".join)
def opened(request, browser, report):
    width, scheme = request.param
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 900}, color_scheme=scheme)
    page, asked = context.new_page(), []
    page.on("request", lambda one: asked.append(one.url))
    page.goto(report.as_uri())
    yield Opened(page, asked)
    context.close()


def test_nothing_overflows_the_page_and_nothing_is_fetched(opened, report, tmp_path):
    opened.page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 100_000
    wide, fits = opened.page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]",
    )
    assert wide <= fits
    assert opened.asked == [report.as_uri()]


def test_opened_details_do_not_overflow_either(opened):
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_every_text_can_be_read_against_what_lies_below_it(opened):
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = opened.page.evaluate(CONTRASTS)
    assert len(found) > 1_000
    assert any(inside for _, _, inside in found)
    assert [(words, round(ratio, 2)) for words, ratio, _ in found if ratio < ENOUGH] == []


def test_every_figure_has_a_text_alternative(opened):
    without = opened.page.evaluate(
        """() => [...document.querySelectorAll('svg')].filter(svg => svg.getAttribute('aria-hidden') !== 'true' &&
             !(svg.getAttribute('role') === 'img' && svg.getAttribute('aria-label')))
             .concat([...document.querySelectorAll('figure')].filter(figure => !figure.querySelector('figcaption')))
             .map(element => element.outerHTML.slice(0, 80))"""
    )
    assert without == []


def test_light_and_dark_differ_in_paper_and_ink_of_page_and_charts(browser, report):
    seen = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(report.as_uri())
        seen[scheme] = page.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
                      getComputedStyle(document.querySelector('figure svg text')).fill]"""
        )
        page.close()
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))


def test_ids_are_unique_and_links_lead_to_sections(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))
    targets = page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href').slice(1))")
    assert targets
    assert set(targets) <= set(ids)
    page.close()


def test_on_paper_it_is_light_and_no_table_is_cut(browser, report, tmp_path):
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    # A4 across without its margins, at 96 pixels an inch.
    page.set_viewport_size({"width": round((297 - 28) / 25.4 * 96), "height": 700})
    cut = page.evaluate(
        """() => [...document.querySelectorAll('table, figure svg')].filter(one => one.checkVisibility() &&
             one.getBoundingClientRect().right > innerWidth + 1).map(one => one.getAttribute('aria-label'))"""
    )
    assert cut == []
    page.close()
