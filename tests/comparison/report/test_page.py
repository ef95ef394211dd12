"""The page: its verdict follows from the numbers, its numbers from the files, and no text of a file is markup."""

import os
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mptune.comparison.intervals import interval
from mptune.comparison.report import charts, write_report
from mptune.comparison.report.costs import against_seconds
from mptune.comparison.report.page import claims, page
from mptune.comparison.report.reading import Results, read_folder, read_published
from mptune.comparison.results import Line
from support import example_run

pytestmark = pytest.mark.slow  # whole pages, with their charts and intervals

RESULTS = Path(__file__).parents[3] / "results"


class Reader(HTMLParser):
    """Tables by their label, each a list of rows of texts; all text by section; all tags."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.sections, self.tags, self.inside = {}, {}, [], []
        self.section = "top"
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "section":
            self.section = attrs["id"]
        if tag == "table":
            self.rows = self.tables.setdefault(attrs["aria-label"], [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" in self.inside:
            return
        self.sections[self.section] = self.sections.get(self.section, "") + data
        if "td" in self.inside or "th" in self.inside:
            self.rows[-1][-1] += data.replace("\n", " ")

    def table(self, label):
        """Method to cells of a table."""
        return {row[0]: row[1:] for row in self.tables[label][1:] if len(row) > 1}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A full example: 17 methods and a variant, 8 tasks, 5 seeds, 16 shots."""
    folder = tmp_path_factory.mktemp("page")
    return read_folder(example_run.write(folder, methods=(*example_run.METHODS, "mpt-no-distillation")))


@pytest.fixture(scope="module")
def whole(results):
    return page(results, read_published())


@pytest.fixture(scope="module")
def read(whole):
    return Reader(whole)


def of(*lines, **fields):
    """Results of lines: method, task, seed, value, shots."""
    keys = ("method", "task", "seed", "value", "shots")
    made = []
    for one in lines:
        values = dict(zip(keys, one, strict=True))
        value = values.pop("value")
        made.append(Line.model_validate({**values, "scores": [{"metric": "accuracy", "value": value}]}))
    return Results("made", tuple(made), **fields)


def of_means(shots=4, **methods):
    """Results of one task with three seeds, each method's scores one point apart."""
    return of(*((m.replace("_", "-"), "rte", s, v + s, shots) for m, v in methods.items() for s in range(3)))


def only(claim_run):
    (claim,) = claims(claim_run)
    return claim


def test_the_verdict_is_yes_when_mpt_leads_every_rival_and_each_is_named_with_difference_and_interval(results):
    claim, _ = claims(results)
    assert claim.headline == "MPT leads every prompt-based method at 16 shots per class."
    assert claim.grounds.startswith("Its mean over 8 target tasks and 5 seeds is ")
    for rival in ("prompt-tuning", "spot", "spot-closest", "attempt", "dept", "transfer"):
        points = r"[+]\d+\.\d"
        intervals = rf"over rows {points} to {points}, over seeds {points} to {points}, over tasks {points} to {points}"
        assert re.search(rf"{rival} {points} \({intervals}\)", claim.grounds)
    assert "Not run" not in claim.grounds


def test_the_verdict_says_plainly_where_mpt_does_not_lead_and_what_was_not_run():
    claim = only(of_means(mpt=60, prompt_tuning=50, spot=65, transfer=59.5, dept=60))
    assert claim.headline == "MPT does not lead every prompt-based method that was run at 4 shots per class."
    assert claim.grounds == (
        "Its mean over 1 target task and 3 seeds is 61.0 ± 2.5. "
        "MPT leads: prompt-tuning +10.0 (over seeds +10.0 to +10.0); transfer +0.5 (over seeds +0.5 to +0.5). "
        "It does not lead: spot −5.0 (over seeds −5.0 to −5.0); dept +0.0 (over seeds +0.0 to +0.0). "
        "Not run: spot-closest, attempt."
    )


def test_the_verdict_is_open_where_an_interval_reaches_zero():
    values = [("mpt", "rte", s, v, 4) for s, v in enumerate((60.0, 50.0, 70.0))]
    claim = only(of(*values, *(("spot", "rte", s, 55.0, 4) for s in range(3))))
    assert claim.headline == "MPT leads no prompt-based method at 4 shots per class."
    assert "It is above, but an interval reaches zero: spot +5.0 (over seeds −19.8 to +29.8)." in claim.grounds


def test_the_verdict_needs_mpt_and_a_rival():
    assert only(of_means(spot=50)).headline == "No verdict: the results hold no run of mpt."
    assert only(of_means(mpt=50, lora=60)).headline == (
        "No verdict at 4 shots per class: no other prompt-based method was run."
    )


def varied(**methods):
    """Results of MPT and variants of it."""
    results = of_means(**methods)
    return replace(
        results, recipe={"variants": {name.replace("_", "-"): {"of": "mpt"} for name in methods if name != "mpt"}}
    )


@pytest.mark.parametrize(
    ("methods", "headline"),
    [
        ({"one": 50, "two": 59}, "MPT leads its 2 variants at 4 shots per class."),
        ({"one": 61}, "Of its 1 variant MPT leads 0 and trails 1 at 4 shots per class."),
        ({"one": 61, "two": 50}, "Of its 2 variants MPT leads 1 and trails 1 at 4 shots per class."),
        ({"one": 60}, "The results do not tell MPT from its 1 variant at 4 shots per class."),
    ],
)
def test_a_run_of_variants_alone_is_judged_by_them(methods, headline):
    assert only(varied(mpt=60, **methods)).headline == headline


def test_the_claim_on_variants_has_their_order_and_every_difference():
    assert only(varied(mpt=60, no_teachers=62, neither=50)).grounds == (
        "In order of the mean over 1 target task: no-teachers 63.0 ± 2.5, mpt 61.0 ± 2.5, neither 51.0 ± 2.5. "
        "MPT minus no-teachers −2.0 (over seeds −2.0 to −2.0); neither +10.0 (over seeds +10.0 to +10.0)."
    )


def test_rivals_and_variants_have_a_claim_each(results):
    rivals, variants = claims(results)
    assert rivals.headline == "MPT leads every prompt-based method at 16 shots per class."
    assert variants.headline.endswith("1 variant at 16 shots per class.")
    assert "mpt-no-distillation" in variants.grounds


def test_one_seed_gives_no_interval_and_no_lead():
    claim = only(of(("mpt", "rte", 0, 60.0, None), ("spot", "rte", 0, 50.0, None)))
    assert claim.headline == "MPT leads no prompt-based method on all training rows."
    assert "spot +10.0 (one seed, no interval)" in claim.grounds


def test_a_rival_with_fewer_tasks_is_compared_on_those_and_it_is_said():
    lines = [("mpt", t, s, 60.0 + s, 4) for t in ("rte", "cb") for s in range(3)]
    claim = only(of(*lines, *(("spot", "rte", s, 50.0 + s, 4) for s in range(3))))
    assert "spot +10.0 (over seeds +10.0 to +10.0, on 1 of 2 tasks)" in claim.grounds


@pytest.mark.slow
def test_the_verdict_is_the_first_paragraph_of_the_page(whole):
    assert re.search(r"<p[ >]", whole)
    first = whole[re.search(r"<p[ >]", whole).start() :]
    assert first.startswith('<p class="verdict"><strong>MPT leads every prompt-based method at 16 shots per class.')


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(results, whole):
    assert page(results, read_published()) == whole


def test_every_number_of_the_score_table_comes_from_the_lines(results, read):
    table = read.table("Scores, 16 shots per class")
    (head, *_) = read.tables["Scores, 16 shots per class"]
    tasks = list(example_run.TARGETS)
    assert head[2:-2] == [f"{task}accuracy{rows} rows" for task, (rows, _) in example_run.TARGETS.items()]
    assert len(table) == 18
    for method, cells in table.items():
        lines = [line for line in results.lines if line.method == method]
        for task, cell in zip(tasks, cells[1:-2], strict=True):
            values = interval([line.value() for line in lines if line.task == task])
            assert cell.lstrip("†") == str(values), (method, task)
        seeds = {line.seed for line in lines}
        means = interval([sum(x.value() for x in lines if x.seed == s) / len(tasks) for s in sorted(seeds)])
        assert cells[0].lstrip("†") == str(means)
        (parameters,) = {line.parameters for line in lines}
        assert cells[-2:] == [f"{parameters.trained:,}", f"{parameters.stored:,}"]


def test_macro_f1_stands_in_a_table_of_its_own(results, read):
    table = read.table("The same answers by macro-F1, 16 shots per class")
    values = [line.value("f1_macro") for line in results.of("mpt", "rte", 16)]
    assert table["mpt"][1].lstrip("†") == str(interval(values))


def test_a_score_that_is_not_above_the_constant_is_marked():
    results = of(("constant", "rte", 0, 50.0, 0), ("zero-shot", "rte", 0, 50.0, 0), ("mpt", "rte", 0, 51.0, 4))
    table = Reader(page(results, ())).table("Scores, 4 shots per class")
    assert (table["constant"], table["zero-shot"], table["mpt"]) == (["50.0"] * 2, ["†50.0"] * 2, ["51.0"] * 2)
    assert "nothing is marked" in page(of_means(mpt=50, spot=40), ())


def test_differences_stand_with_both_intervals_and_a_finding(read):
    table = read.table("MPT against each method, 16 shots per class")
    assert set(table) == {*example_run.METHODS, "mpt-no-distillation"} - {"mpt"}
    assert table["prompt-tuning"][-2:] == ["8 of 8", "MPT leads"]
    assert all(re.fullmatch(r"[+−][\d.]+ to [+−][\d.]+", cells[i]) for cells in table.values() for i in (1, 2, 4))


def test_published_tables_are_those_of_the_runs_groups_and_shots_and_stand_apart(read):
    labels = [label for label in read.tables if label.startswith("Published")]
    assert labels == [
        "Published, not measured here: GLUE, T5-base, all training rows",
        "Published, not measured here: SuperGLUE, T5-base, all training rows",
        "Published, not measured here: Others, T5-base, all training rows",
        "Published, not measured here: Few-shot BoolQ, CB, SciTail, T5-base, 16 shots",
        "Published, not measured here: Few-shot GLUE, T5-base, 16 shots",
        "Published, not measured here: Few-shot SuperGLUE, T5-base, 16 shots",
    ]
    assert read.table(labels[0])["MPT"] == "85.9 90.3 93.1 93.8 90.4 89.1 79.4 62.4 85.6 77.6K".split()
    assert "arXiv:2303.02861" in read.sections["published"]
    assert 'id="published"' not in page(of(("mpt", "a-task-of-mine", 0, 50.0, 4)), read_published())


def timed(method, seconds, value=50.0):
    return [one.model_copy(update={"seconds": s}) for s in seconds for one in of((method, "rte", 0, value, 4)).lines]


def test_scores_stand_against_the_median_seconds_of_a_run():
    lines = (*timed("mpt", [3.0, 1000.0, 4.0]), *timed("lora", [0.0]), *timed("constant", [7.0]))
    section = against_seconds(Results("r", lines))
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "scatter", lambda points, flat, *_: drawn.append((points, flat)) or "")
        against_seconds(Results("r", lines))
    ((points, flat),) = drawn
    assert [(name, cost) for name, cost, _ in points] == [("mpt", 4.0), ("lora", 0.1)]
    assert flat == [("constant", 50.0)]
    assert "seconds of a run" in section.blocks[0].svg
    assert against_seconds(of_means(mpt=50, spot=40)) is None  # lines that do not say


def test_every_figure_has_a_label_and_a_caption(read):
    pictures = [attrs for tag, attrs in read.tags if tag == "svg" and attrs.get("aria-hidden") != "true"]
    assert len(pictures) == 1 + 2 + 3 * 8 + 2 + 1  # forest, costs, curves of three families, similarities, gains
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in pictures)
    labels = [attrs["aria-label"] for attrs in pictures]
    assert len(labels) == len(set(labels))
    count = [tag for tag, _ in read.tags]
    assert count.count("figure") == count.count("figcaption")


@pytest.mark.slow
def test_few_shot_curves_are_drawn_only_for_several_numbers_of_shots(tmp_path, read):
    assert "shots" not in read.sections
    several = Reader(page(read_folder(example_run.write(tmp_path, shots=(4, 16), seeds=2, targets=("rte",))), ()))
    assert "shots" in several.sections
    assert {"Scores, 4 shots per class", "Scores, 16 shots per class"} <= set(several.tables)
    labels = [attrs["aria-label"] for tag, attrs in several.tags if tag == "svg" and "aria-label" in attrs]
    assert any(label.startswith("Prompts are trained: scores on mean over tasks by shots") for label in labels)


def test_similarities_and_gains_have_their_numbers_as_tables_too(results, read):
    table = read.table("Cosine similarity")
    assert table["prompts: mnli"][0] == table["task matrices: paws"][-1] == "1"
    gains = read.table("Gain of each target from each source")
    bare, own = (results.of(m, "rte", 16)[0].value() for m in ("zero-shot", "from:mnli"))
    assert gains["mnli"][0] == f"{own - bare:+.1f}".replace("-", "−")


def test_alarms_name_task_and_difference_and_whether_chance_is_ruled_out():
    results = of(
        *(("mpt", t, s, v + s, 4) for t, v in (("rte", 60), ("cb", 40)) for s in range(3)),
        *(("prompt-tuning", t, s, v + s, 4) for t, v in (("rte", 50), ("cb", 45)) for s in range(3)),
        ("constant", "cb", 0, 40.5, 0),
    )
    read = Reader(page(results, ()))
    assert read.tables["Alarms by task"][1:] == [
        ["cb", "below prompt-tuning", "−5.0", "−5.0 to −5.0", "–", "beyond chance"],
        ["cb", "not above constant", "+0.5", "−2.0 to +3.0", "–", "may be chance"],
    ]
    assert "Not checked, for want of results: transfer, teacher." in read.sections["alarms"]


def test_without_alarms_the_page_says_so():
    assert "None: on every task MPT is at or above prompt-tuning." in page(of_means(mpt=60, prompt_tuning=50), ())
    assert "nothing to raise an alarm for" in page(of_means(lora=60), ())


def test_what_the_results_lack_is_said_in_a_line_and_leaves_no_empty_figure():
    text = page(of_means(mpt=60, prompt_tuning=50), ())
    for sentence in (
        "The results do not say how many parameters the methods store.",
        "The results hold no learning curves.",
        "There is no similarity.json",
        "No source task&#39;s own prompt was scored",
        "There is no recipe.json",
    ):
        assert sentence in text
    assert text.count("<figure") == 1  # the differences


def test_everything_that_comes_from_files_is_escaped():
    bad = '<script>alert("x")</script>'
    lines = [
        {"method": m, "task": bad, "shots": 4, "seed": s, "scores": [{"metric": bad, "value": 50.0 + s}],
         "machine": bad, "commit": bad, "versions": {bad: bad}, "dtype": bad, "parameters": {"trained": 1, "stored": 1},
         "curve": [{"step": 0, "validation": 1.0}, {"step": 1, "validation": 2.0}]}
        for m in ("mpt", bad) for s in (0, 1)
    ]  # fmt: skip
    recipe = {"name": bad, "sources": [bad], "variants": {bad: {bad: bad}}, "backbone": {"name": bad}}
    text = page(Results(bad, tuple(Line.model_validate(line) for line in lines), recipe), ())
    assert "<script" not in text
    assert "alert(" in text


def test_settings_commit_versions_and_machine_stand_on_the_page(results, read):
    assert "4debfe6a1b2c" in read.sections["top"]
    assert "transformers 5.23.0" in read.sections["top"]
    assert "2 cores of an AMD EPYC, no GPU" in read.sections["top"]
    assert '"distill_weight": 0.9' in read.sections["made"]
    seconds = [line.seconds for line in results.lines if line.method == "mpt"]
    assert read.table("Time of each method")["mpt"] == ["40", f"{sum(seconds) / 40:,.1f}", f"{sum(seconds):,.0f}"]


def test_the_page_asks_nothing_of_the_network_and_runs_no_script(whole, read):
    assert not {tag for tag, _ in read.tags} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    addresses = [a for _, attrs in read.tags for k, a in attrs.items() if k in ("href", "src", "xlink:href")]
    assert all(address.startswith("#") for address in addresses)
    assert "url(http" not in whole
    assert "@import" not in whole


@pytest.mark.parametrize("name", ["quickstart", "small/ablation"])
def test_committed_results_of_earlier_versions_give_a_page(name, tmp_path):
    headlines = write_report(RESULTS / name, tmp_path / "page.html")
    begins = {
        "quickstart": "Above MPT at 8 shots per class, at a fraction of its cost: linear-probe by 2.8. MPT ",
        "small/ablation": "The results do not tell MPT from its 3 variants",
    }
    assert all(headline.startswith(begins[name]) for headline in headlines)
    table = Reader((tmp_path / "page.html").read_text()).table
    markdown = (RESULTS / name / "results.md").read_text()
    means = re.findall(r"^\| ([a-z-]+) \|.* \*\*([\d.]+[^*]*)\*\* \|$", markdown.partition("minus")[0], re.MULTILINE)
    shots = {"quickstart": 8, "small/ablation": 16}[name]
    cells = {method: row[0] for method, row in table(f"Scores, {shots} shots per class").items()}
    assert {method: cell.lstrip("†") for method, cell in cells.items()} == dict(means)


def test_the_command_writes_the_page_beside_the_results_or_where_it_is_told(cli, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.jsonl").write_bytes((RESULTS / "quickstart" / "results.jsonl").read_bytes())
    code, out, err = cli("report", folder)
    assert (code, out.count("\n")) == (0, 1)
    assert out.endswith("MPT does not lead every prompt-based method that was run at 8 shots per class.\n")
    assert err == f"Written to {folder / 'report.html'}\n"
    code, *_ = cli("report", folder, "--out", tmp_path / "page.html")
    assert code == 0
    # The name is the folder's, so both pages are alike.
    assert (tmp_path / "page.html").read_bytes() == (folder / "report.html").read_bytes()


def test_the_command_says_what_is_wrong_with_a_folder_and_with_a_place_to_write(cli, tmp_path):
    code, _, err = cli("report", tmp_path)
    assert code == 2
    assert "holds no results.jsonl; name the folder that `mptune bench` wrote" in err
    code, _, err = cli("report", RESULTS / "quickstart", "--out", tmp_path / "nowhere" / "page.html")
    assert code == 2
    assert "page.html cannot be written (No such file or directory); choose another --out" in err


def test_a_page_may_go_to_a_link_or_a_pipe_but_not_into_a_folder(cli, tmp_path):
    (tmp_path / "page.html").write_text("old")
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    assert cli("report", RESULTS / "quickstart", "--out", tmp_path / "link.html")[0] == 0
    assert (tmp_path / "link.html").is_symlink()
    page = (tmp_path / "page.html").read_text()
    assert page.lstrip().startswith("<!doctype html>")
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    assert cli("report", RESULTS / "quickstart", "--out", tmp_path / "pipe")[0] == 0
    try:
        assert reader.communicate(timeout=20)[0] == page
    finally:
        reader.kill()
    for folder in (tmp_path, "/", "."):
        code, _, err = cli("report", RESULTS / "quickstart", "--out", folder)
        assert (code, err) == (2, f"mptune: {folder} cannot be written (Is a directory); choose another --out\n")


@pytest.mark.parametrize("name", ["results.jsonl", "recipe.json", "sources.jsonl"])
def test_a_page_never_takes_the_place_of_the_results(cli, tmp_path, name):
    results = (RESULTS / "quickstart" / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(results)
    out = tmp_path / "elsewhere" / ".." / name
    code, _, err = cli("report", tmp_path, "--out", out)
    assert (code, err) == (2, f"mptune: {out} holds the results themselves; choose another --out\n")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("results.jsonl", results)]
