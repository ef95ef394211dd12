"""Charts: the same numbers give the same bytes, in the page's colours, with a label, and text that is text."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from mptune.comparison.intervals import Interval
from mptune.comparison.report import charts

FIRM, OPEN, BELOW = Interval(2.0, 1.0, 3.0, 5), Interval(0.5, -1.0, 2.0, 5), Interval(-2.0, -3.0, -1.0, 5)
SERIES = [charts.Series(style, (0, 5, 10), (FIRM, OPEN, None)) for style in range(7)]
DRAWN = {
    "forest": lambda: charts.forest(["spot", "a<b&c $x_1$"], [[FIRM, OPEN], [BELOW]], 'MPT "minus" <all>', "points"),
    "scatter": lambda: charts.scatter(
        [("mpt", 10_240, FIRM), ("lora", 344_064, OPEN)], [("zero-shot", 1.0)], "mpt", "s", "numbers"
    ),
    "curves": lambda: charts.curves([("score", SERIES), ("loss", SERIES)], "curves", "step"),
    "shots": lambda: charts.curves([("score", SERIES)], "by shots", "shots per class", ["4", "16", "all"]),
    "heat": lambda: charts.heat(["x", "y"], ["a", "b"], [[1.0, -0.5], [None, 0.25]], "heat", str, split=1),
}


def styles(svg, kind):
    """The style of every element of a kind."""
    return [node.get("style", "") for node in ElementTree.fromstring(with_names(svg)).iter() if node.tag.endswith(kind)]


def with_names(svg):
    """The SVG as a document of its own; within a page these names are known."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg ", f"<svg {names} ", 1)


def texts(svg):
    return [node.text for node in ElementTree.fromstring(with_names(svg)).iter() if node.tag.endswith("text")]


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_numbers_give_the_same_bytes(name):
    assert DRAWN[name]() == DRAWN[name]()


@pytest.mark.parametrize("name", DRAWN)
def test_every_colour_is_one_of_the_pages_own(name):
    svg = DRAWN[name]()
    assert not re.findall(r"#[0-9a-f]{6}\b", svg)
    assert set(re.findall(r"var\((--[\w-]+)\)", svg)) <= {
        "--muted", "--rule", "--paper", "--up", "--down", *(f"--series-{n}" for n in range(7)),
    }  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_spoken_of_by_its_label_and_brings_nothing_for_the_rest_of_the_page(name):
    svg = DRAWN[name]()
    root = ElementTree.fromstring(with_names(svg))
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert "<style" not in svg
    assert "font-family" not in svg
    assert "http" not in svg


def test_pictures_of_one_page_share_no_id():
    pictures = [*(draw() for draw in DRAWN.values()), charts.swatch(0, "first"), charts.swatch(0, "second")]
    ids = [found for svg in pictures for found in set(re.findall(r' id="([^"]+)"', svg))]
    assert len(ids) == len(set(ids)) > 0
    assert 'aria-hidden="true"' in pictures[-1]


def test_names_are_escaped_and_never_read_as_formulas():
    svg = DRAWN["forest"]()
    assert "a<b&c $x_1$" in texts(svg)
    assert 'aria-label="MPT &quot;minus&quot; &lt;all&gt;"' in svg


def test_what_lies_wholly_on_one_side_of_zero_has_another_colour():
    svg = charts.forest(["x"], [[OPEN]], "open", "points")
    assert "series-" not in svg
    assert "--series-0" in charts.forest(["x"], [[FIRM]], "firm", "points")
    assert "--series-1" in charts.forest(["x"], [[BELOW]], "below", "points")


def test_series_differ_by_marker_and_dash_and_not_by_colour_alone():
    assert len(set(charts.MARKERS)) == len(set(charts.DASHES)) == len(charts.SERIES) == 7
    without_colour = {re.sub(r"var\(--series-\d\)|#?[mp][0-9a-f]{10}", "", charts.swatch(n, "x")) for n in range(7)}
    assert len(without_colour) == 7


def test_the_axis_of_parameters_is_logarithmic():
    svg = charts.scatter([(str(n), 10**n, FIRM) for n in (3, 5, 7)], [], "", "s", "numbers")
    assert {"1k", "10k", "100k", "1M", "10M"} <= set(texts(svg))
    places = sorted(float(x) for x in re.findall(r'<use xlink:href="[^"]+" x="([\d.]+)"', svg))
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.01)


def test_names_of_points_do_not_stand_on_each_other():
    points = [(f"method-{n}", 10_240, Interval(50 + 0.1 * n, 50 + 0.1 * n, 50 + 0.1 * n, 1)) for n in range(8)]
    svg = charts.scatter([*points, ("far", 10**6, Interval(60, 60, 60, 1))], [], "", "crowd", "numbers")
    nodes = [node for node in ElementTree.fromstring(with_names(svg)).iter() if "method" in (node.text or "")]
    boxes = [(float(node.get("x")), float(node.get("y"))) for node in nodes]
    assert len(boxes) == 8
    for i, (x, y) in enumerate(boxes):
        assert all(abs(y - b) >= 10 or abs(x - a) >= 50 for a, b in boxes[:i])


def test_a_cells_strength_is_its_share_of_the_largest_and_its_hue_its_sign():
    svg = DRAWN["heat"]()
    found = []
    for style in styles(svg, "path"):
        if hue := re.search(r"--(up|down)", style):
            opacity = re.search(r"opacity: ([\d.]+)", style)
            found.append((hue[1], float(opacity[1]) if opacity else 1.0))
    assert found == [("up", 1.0), ("down", 0.5), ("up", 0.25)]
    assert {"1.0", "-0.5", "0.25", "x", "y", "a", "b"} == set(texts(svg))


@pytest.mark.slow
def test_without_the_extra_the_error_names_it():
    for missing in ("matplotlib", "jinja2"):
        code = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from mptune.errors import MissingExtraError\n"
            "try: import mptune.comparison.report.page\nexcept MissingExtraError as error: print(error)"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said.strip() == "`mptune report` needs more libraries. Install them: pip install 'mptune[report]'"
