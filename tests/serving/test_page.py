"""The page in a real browser, through a real server. Skipped, and says so, without one."""

import csv
import io
import re
import threading
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from mptune.model.stepwise import Writer
from mptune.prompts.card import Calibration
from mptune.serving.keys import ApiKey, hashed
from mptune.serving.page import page_files
from mptune.tasks.task import Task
from support.chromium import ARGUMENTS, BROWSER, CONTRASTS, ENOUGH
from support.models import make_backbone
from support.prompts import random_prompt
from support.serving import MOOD, TASKS, prompts_folder, serving

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'mptune[dev]'")

sync_api.expect.set_options(timeout=15_000)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium"),
]

EVIL = "<img src=x onerror=alert(1)>"
HOSTILE = Task(
    name="hostile",
    description=f"Is it {EVIL}?",
    template=f"{EVIL} {{text}}",
    verbalizer={EVIL: f"good {EVIL}", "1": "bad"},
)
NOTED = MOOD.model_copy(update={"name": "noted", "template": "mood: {note}"})
CALM = MOOD.model_copy(update={"name": "calm", "description": "Is it calm?"})
FOUND = Calibration(temperature=1.0, threshold=1.0, precision=0.9, rows=40, split="validation")
VIEWS = ("ask", "compare", "table", "prompt")
WIDTHS = {"desktop": 1280, "phone": 360}


BOX = "Rows, the first line with the columns’ names"  # the label of the box that takes them


class Visitor:
    """A page in the browser, all that it asked for, and all that it complained of."""

    def __init__(self, context, address):
        self.page, self.address, self.asked, self.complaints = context.new_page(), address, [], []
        self.page.set_default_timeout(10_000)
        self.page.on("request", lambda one: self.asked.append(one.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))

    def open(self, place="", ready="text"):
        """Go to a place of the page; wait until the box of a field is there."""
        self.page.goto(f"{self.address}/#{place}")
        self.page.get_by_label(ready, exact=True).first.wait_for()
        return self.page

    def answer(self, text):
        """Ask, and return the label that is shown."""
        self.page.locator("#ask").get_by_label("text", exact=True).fill(text)
        self.page.get_by_role("button", name="Answer", exact=True).click()
        return self.verdict()

    def verdict(self, place="#ask"):
        """The answer that is shown, and its share."""
        return self.page.locator(f"{place} .verdict").first.inner_text()

    def forget(self, *said):
        """Drop complaints that a test is about."""
        self.complaints = [each for each in self.complaints if not any(word in each for word in said)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server of tasks, one of them calibrated and scored, one hostile, and that one with a hostile second name."""
    model = make_backbone("t5")
    folder = prompts_folder(tmp_path_factory.mktemp("page") / "prompts", model, [*TASKS, HOSTILE, NOTED])
    prompt = random_prompt(model, [CALM], seed=9)
    scores = ({"task": "calm", "split": "test", "metric": "accuracy", "value": 87.5, "examples": 64},)
    prompt.card = prompt.card.model_copy(update={"scores": scores, "calibration": {"calm": FOUND}})
    prompt.save_pretrained(folder / "calm")
    with serving(folder, model, max_rows=150, max_target_tokens=40) as (address, engine, store):
        store.alias(EVIL, "hostile")
        yield address, engine


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, site):
    """A visitor of the site; in the end nothing was asked of another host, and the browser complained of nothing."""
    visitors, contexts = [], []

    def come(address=site[0], **settings):
        settings = {"viewport": {"width": WIDTHS["desktop"], "height": 900}, **settings}
        contexts.append(browser.new_context(**settings))
        visitors.append(Visitor(contexts[-1], address))
        return visitors[-1]

    yield come
    for visitor, context in zip(visitors, contexts, strict=True):
        assert [url for url in visitor.asked if not url.startswith((f"{visitor.address}/", "blob:"))] == []
        assert visitor.complaints == []
        context.close()


def classified(address, name, row):
    return httpx.post(f"{address}/v1/classify", json={"model": name, "input": [row]}, timeout=20).json()["data"][0]


def share(value):
    return f"{100 * value:.1f} %"


# -- its files --------------------------------------------------------------------------------------------------------


def test_the_pages_files_and_no_others_are_served_with_their_types_and_a_strict_policy(site):
    address, _ = site
    names = sorted(page_files())
    assert {"index.html", "style.css", "main.js", "icon.svg"} <= set(names)
    for path in ("/", *(f"/page/{name}" for name in names)):
        answer = httpx.get(address + path)
        kind = path.rpartition(".")[2].replace("/", "html").replace("js", "javascript").replace("svg", "svg+xml")
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0].endswith(f"/{kind}")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        again = httpx.get(address + path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/page/app.py", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/", "/page/index.html/x"):
        assert httpx.get(address + path).status_code == 404


def test_a_file_of_the_page_is_read_in_one_sitting_and_holds_no_other_address():
    for name, file in page_files().items():
        text = file.content.decode()
        assert len(text.splitlines()) <= 400, name
        assert max(map(len, text.splitlines())) <= 120 or name == "icon.svg", name
        assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|style=|onclick=", text), name


# -- what has not come yet takes nothing -------------------------------------------------------------------------------


@pytest.fixture
def late(visit):
    """A visitor to whom the task `long` comes half a second after it was asked for."""
    visitor = visit()

    def delayed(route):
        visitor.page.wait_for_timeout(500)
        route.continue_()

    visitor.page.route("**/v1/models/long", delayed)
    return visitor


def test_a_panel_is_hidden_until_its_task_has_come_and_what_was_wrong_is_still_told(late):
    page = late.open("mood/table", BOX)
    page.get_by_label(BOX).fill("text,more")
    said = "It has a first line with names of columns, and no row below."
    sync_api.expect(page.locator("#table [role=alert]")).to_have_text(said)
    page.evaluate("location.hash = '#long/table'")
    sync_api.expect(page.locator("#table")).to_be_hidden(timeout=400)
    sync_api.expect(page.locator("#table [role=alert]")).to_have_text(said)
    sync_api.expect(page.locator("#table")).to_be_visible()


def test_two_tasks_are_not_asked_before_the_other_has_come(late):
    page = late.open("mood/compare", "Compared with")
    page.locator("#compare .side").first.wait_for()
    page.evaluate("location.hash = '#mood/compare/long'")
    sync_api.expect(page.locator("#compare textarea")).to_have_count(0, timeout=400)
    page.locator("#compare .side").get_by_role("heading", name="long").wait_for()
    assert page.locator("#compare textarea").count() == 1


def test_who_types_goes_on_in_the_box_of_the_task_that_comes(late):
    page = late.open("mood", "text")
    page.locator("#ask textarea").fill("go")
    page.evaluate("location.hash = '#long/ask'")
    sync_api.expect(page.locator("#ask")).to_be_hidden(timeout=400)
    sync_api.expect(page.locator("#ask")).to_be_visible()
    page.keyboard.type("od")
    assert page.locator("#ask textarea").input_value() == "good"


# -- a task is picked and asked ---------------------------------------------------------------------------------------


def test_a_task_is_picked_by_typing_and_answers_by_keyboard_alone(visit, site):
    visitor = visit()
    page = visitor.open()
    page.get_by_role("combobox", name="Task").focus()
    page.keyboard.type("OO")
    assert page.get_by_role("option").all_inner_texts() == ["mood"]
    page.keyboard.press("Enter")
    page.wait_for_url("**/#mood/ask")
    page.get_by_text("The answer will be one of bad, good.").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Ask"
    page.keyboard.press("Tab")
    page.keyboard.type("good")
    page.keyboard.press("Control+Enter")
    wanted = classified(site[0], "mood", "good")
    assert visitor.verdict().split() == [wanted["answer"], *share(wanted["confidence"]).split()]
    bars = page.locator("#ask .bars li")
    shares = sorted(wanted["probabilities"].items(), key=lambda pair: -pair[1])
    assert [bar.inner_text().split()[0] for bar in bars.all()] == [word for word, _ in shares]
    assert [bar.locator(".share").inner_text() for bar in bars.all()] == [share(value) for _, value in shares]
    widths = page.evaluate(
        "[...document.querySelectorAll('#ask .bar')].map(b => b.firstChild.offsetWidth / b.offsetWidth)"
    )
    assert widths == pytest.approx([value for _, value in shares], abs=0.01)
    said = page.locator("#ask [role=status]").inner_text()
    assert said == f"{wanted['answer']}, {share(wanted['confidence'])}", "what a screen reader hears"
    assert re.search(r"\d+ ms · \d+ tokens read", page.locator("#ask .facts").inner_text())
    page.get_by_text("What the model reads").click()
    assert page.locator("#ask pre").inner_text() == "mood: good"


def test_the_list_is_walked_by_arrows_and_left_by_escape(visit):
    page = visit().open("mood")
    box = page.get_by_role("combobox", name="Task")
    box.focus()
    page.keyboard.press("ArrowDown")
    assert box.get_attribute("aria-expanded") == "true"
    assert page.locator("[aria-selected=true][role=option]").inner_text() == "mood", "it begins where one is"
    page.keyboard.press("ArrowUp")
    marked = page.locator(f"#{box.get_attribute('aria-activedescendant')}")
    assert marked.inner_text() == "long"
    page.keyboard.press("Escape")
    assert (box.get_attribute("aria-expanded"), box.input_value()) == ("false", "mood")
    page.keyboard.type("nothing like it")
    assert "None of 9 tasks is called so" in page.locator(".popup").first.inner_text()
    page.keyboard.press("Tab")
    assert box.input_value() == "mood"
    box.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url("**/#pair/ask")


def test_of_thousands_of_tasks_some_are_listed_and_all_are_found(visit):
    visitor = visit()
    names = [f"task-{number:05}" for number in range(9_000)]
    models = [{"id": "tiny", "parent": None}, *({"id": name, "parent": "tiny"} for name in ["mood", *names])]
    visitor.page.route("**/v1/models", lambda route: route.fulfill(json={"data": models}))
    page = visitor.open("mood")
    assert page.locator("#server").inner_text() == "tiny · 9,001 tasks"
    page.get_by_role("combobox", name="Task").click()
    assert page.get_by_role("option").count() == 50
    assert page.locator(".more").first.inner_text() == "8,951 more; type on to find them"
    page.keyboard.type("8765 task")
    assert page.get_by_role("option").all_inner_texts() == ["task-08765"]


def test_fields_are_asked_by_name_and_kept_for_the_next_task(visit, site):
    visitor = visit()
    page = visitor.open("pair", "one")
    page.get_by_label("one", exact=True).fill("good")
    page.get_by_label("two", exact=True).fill("bad")
    page.get_by_role("button", name="Answer", exact=True).click()
    assert visitor.verdict().split()[0] == classified(site[0], "pair", {"one": "good", "two": "bad"})["answer"]
    visitor.open("mood").get_by_label("text", exact=True).fill("slow")
    visitor.open("long")
    assert page.get_by_label("text", exact=True).input_value() == "slow"


def test_an_answer_below_the_threshold_is_said_to_be_abstained(visit):
    visitor = visit()
    page = visitor.open("calm")
    visitor.answer("good")
    assert page.locator("#ask .abstained").inner_text().startswith("Abstained. Below 100 %")
    assert page.locator("#ask [role=status]").inner_text().endswith(", abstained")
    visitor.open("mood")
    visitor.answer("good")
    assert page.locator("#ask .abstained").count() == 0


def test_a_refusal_is_told_in_words_and_the_next_row_is_answered(visit):
    visitor = visit()
    page = visitor.open("mood")
    page.get_by_role("button", name="Answer", exact=True).click()
    alert = page.locator("#ask [role=alert]")
    sync_api.expect(alert).to_have_text(re.compile("nothing to read, text is empty"))
    assert visitor.answer("good")
    assert not alert.is_visible()
    visitor.page.route("**/v1/classify", lambda route: route.abort())
    page.get_by_role("button", name="Answer", exact=True).click()
    sync_api.expect(alert).to_have_text(re.compile("The server does not answer"))
    visitor.page.goto(f"{visitor.address}/#nowhere")
    sync_api.expect(page.locator("#problem")).to_have_text(re.compile("no task is called 'nowhere'"))
    visitor.forget("Failed to load resource")


# -- texts that are written -------------------------------------------------------------------------------------------


def test_a_text_is_shown_while_it_is_written(visit, site, monkeypatch):
    steps, goes_on, step = [], threading.Event(), Writer.step

    def slow(self):
        steps.append(1)
        assert len(steps) < 20 or goes_on.wait(20)
        step(self)

    monkeypatch.setattr(Writer, "step", slow)
    visitor = visit()
    page = visitor.open("free")
    page.get_by_label("text", exact=True).fill("good")
    page.get_by_role("button", name="Answer", exact=True).click()
    sync_api.expect(page.locator("#ask .written")).not_to_be_empty()
    first = page.locator("#ask .written").text_content()
    assert page.locator("#ask .answer").get_attribute("aria-busy") == "true"
    assert page.get_by_role("button", name="Stop").is_visible()
    goes_on.set()
    page.locator("#ask .facts").wait_for()
    whole = page.locator("#ask .written").text_content()
    body = {"model": "free", "prompt": "good"}
    assert whole == httpx.post(f"{site[0]}/v1/completions", json=body, timeout=20).json()["choices"][0]["text"]
    assert whole.startswith(first)
    assert len(whole) > len(first)
    assert "first words after" in page.locator("#ask .facts").inner_text()


def test_who_stops_a_text_leaves_nothing_behind(visit, site, monkeypatch):
    step = Writer.step
    monkeypatch.setattr(Writer, "step", lambda self: (threading.Event().wait(0.1), step(self)))
    page = visit().open("free")
    page.get_by_label("text", exact=True).fill("good")
    page.get_by_role("button", name="Answer", exact=True).click()
    page.get_by_role("button", name="Stop").click()
    sync_api.expect(page.locator("#ask [role=status]")).to_have_text("Stopped")
    for _ in range(300):
        if not (site[1].writing or site[1].waiting):
            break
        threading.Event().wait(0.01)
    assert (site[1].writing, site[1].waiting) == (0, 0)
    assert page.get_by_role("button", name="Answer", exact=True).is_visible()


# -- tables -----------------------------------------------------------------------------------------------------------

ROWS = [
    ["good", 'a "b"; c'],
    ["two\nlines", "bad"],
    ["=1+1", "täglich"],
    ["", ""],
    *([f"no {n}", "yes"] for n in range(247)),
]


def table_file(delimiter, rows, encoding="utf-8-sig"):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return {"name": "my rows.csv", "mimeType": "text/csv", "buffer": text.getvalue().encode(encoding)}


def downloaded(page):
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download as CSV").click()
    text = Path(caught.value.path()).read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    return caught.value.suggested_filename, text.decode("utf-8-sig")


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8-sig"), (",", "cp1252"), ("\t", "utf-16")])
def test_a_table_goes_in_and_comes_out_with_answers(visit, site, delimiter, encoding):
    visitor = visit()
    page = visitor.open("pair/table", "Rows, the first line with the columns’ names")
    file = table_file(delimiter, [["Two", "note, or so", "one"], *([two, "x", one] for one, two in ROWS)], encoding)
    page.locator("input[type=file]").set_input_files(file)
    assert page.get_by_label("one is read from").evaluate("box => box.selectedOptions[0].text") == "one"
    assert page.get_by_label("two is read from").evaluate("box => box.selectedOptions[0].text") == "Two"
    page.get_by_role("button", name="Answer 251 rows").click()
    sync_api.expect(page.locator("#table [role=status]")).to_have_text("251 rows answered · 1 could not be")
    name, text = downloaded(page)
    assert name == "my-rows-pair.csv"
    head, *lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    assert head == ["Two", "note, or so", "one", "answer", "confidence", "P(no)", "P(yes)", "problem"]
    assert [[line[2], line[0]] for line in lines] == ROWS
    for line, (one, two) in list(zip(lines, ROWS, strict=True))[:3]:
        wanted = classified(site[0], "pair", {"one": one, "two": two})
        assert (line[3], float(line[4])) == (wanted["answer"], pytest.approx(wanted["confidence"], abs=1e-4))
        assert float(line[6]) == pytest.approx(wanted["probabilities"]["yes"], abs=1e-4)
    assert lines[3][3:] == ["", "", "", "", "nothing to read, one, two is empty; fill it, or leave the row out"]
    assert page.locator("#table tbody tr").count() == 200
    requests = [url for url in visitor.asked if url.endswith("/v1/classify")]
    assert 4 <= len(requests) <= 20, "batches, and the halves of the one with a bad row"
    visitor.forget("Failed to load resource: the server responded with a status of 400")


def test_pasted_lines_of_one_column_may_have_commas_and_quotes(visit, site):
    page = visit().open("mood/table", "Rows, the first line with the columns’ names")
    texts = ["good, or so", '"fine", she said', "it's bad; very"]
    page.get_by_label("Rows, the first line").fill("\n".join(["review", *texts]))
    page.get_by_role("button", name="Answer 3 rows").click()
    _, text = downloaded(page)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["review"] for row in rows] == texts
    assert [row["answer"] for row in rows] == [classified(site[0], "mood", text)["answer"] for text in texts]


def test_a_table_of_a_task_that_writes_has_its_texts(visit, site):
    page = visit().open("free/table", "Rows, the first line with the columns’ names")
    page.get_by_label("Rows, the first line").fill("text,answer\ngood,x\nbad,y\n")
    page.get_by_role("button", name="Answer 2 rows").click()
    _, text = downloaded(page)
    told = httpx.post(f"{site[0]}/v1/completions", json={"model": "free", "prompt": ["good", "bad"]}, timeout=20).json()
    head, *lines = csv.reader(io.StringIO(text, newline=""))
    assert head == ["text", "answer", "answer (mptune)"]
    assert [line[2] for line in lines] == [choice["text"] for choice in told["choices"]]


def test_a_busy_server_is_waited_for_and_progress_is_shown(visit):
    visitor, busy = visit(), [2]
    page = visitor.open("mood/table", "Rows, the first line with the columns’ names")

    def some(route):
        if busy[0]:
            busy[0] -= 1
            said = {"error": {"message": "150 rows wait already"}}
            return route.fulfill(status=429, headers={"Retry-After": "1"}, json=said)
        seen.append(page.get_by_role("progressbar").get_attribute("value") if len(seen) else "0")
        return route.continue_()

    seen = []
    page.route("**/v1/classify", some)
    page.get_by_label("Rows, the first line").fill("text\n" + "good\n" * 300)
    page.get_by_role("button", name="Answer 300 rows").click()
    sync_api.expect(page.locator("#table [role=status]")).to_have_text(
        re.compile("The server has much to do; on in 1 s")
    )
    sync_api.expect(page.locator("#table [role=status]")).to_have_text("300 rows answered")
    assert len(seen) == 3
    visitor.forget("429")


@pytest.mark.parametrize(("text", "said"), [
    ("text,more", "It has a first line with names of columns, and no row below."),
    ("a,b\n1,2,3", "Row 1 has 3 cells, and the first line names 2 columns."),
    ('a,b\n1,"2', "A quote in line 2 is never closed."),
])  # fmt: skip
def test_what_is_no_table_is_told(visit, text, said):
    page = visit().open("mood/table", "Rows, the first line with the columns’ names")
    page.get_by_label("Rows, the first line").fill(text)
    sync_api.expect(page.locator("#table [role=alert]")).to_have_text(re.compile(re.escape(said)))
    page.get_by_label("Rows, the first line").fill("a,b\ngood,2")
    page.get_by_role("button", name="Answer 1 row").click()
    sync_api.expect(page.locator("#table [role=alert]")).to_have_text("Say which column holds text.")


# -- two tasks, and what a task is ------------------------------------------------------------------------------------


def test_two_tasks_answer_one_row_side_by_side(visit, site):
    visitor = visit()
    page = visitor.open("mood/compare", "Compared with")
    page.get_by_role("combobox", name="Compared with").click()
    page.keyboard.type("lon")
    page.keyboard.press("Enter")
    page.locator("#compare .side").get_by_role("heading", name="long").wait_for()
    page.locator("#compare").get_by_label("text", exact=True).fill("good")
    page.get_by_role("button", name="Answer both").click()
    for number, name in enumerate(["mood", "long"]):
        side = page.locator("#compare .side").nth(number)
        assert side.locator(".verdict strong").inner_text() == classified(site[0], name, "good")["answer"]
        assert side.get_by_role("heading").inner_text() == name
    visitor.open("mood/compare/noted")
    page.locator("#compare .side").get_by_role("heading", name="noted").wait_for()
    assert page.locator("#compare textarea").count() == 1, "a text is a text, whatever its field is called"
    page.get_by_role("button", name="Answer both").click()
    wanted = classified(site[0], "noted", "good")
    said = page.locator("#compare .side").nth(1).locator(".verdict").inner_text()
    assert said.split() == [wanted["answer"], *share(wanted["confidence"]).split()]
    visitor.open("mood/compare/pair", "one")
    for field, text in (("text", "good"), ("one", "a"), ("two", "b")):
        page.locator("#compare").get_by_label(field, exact=True).fill(text)
    page.get_by_role("button", name="Answer both").click()
    wanted = classified(site[0], "pair", {"one": "a", "two": "b"})["answer"]
    assert page.locator("#compare .side").nth(1).locator(".verdict strong").inner_text() == wanted


def test_a_task_is_told_with_its_scores_its_words_and_its_neighbours(visit, site):
    visitor = visit()
    page = visitor.page
    page.goto(f"{site[0]}/#calm/prompt")
    told = httpx.get(f"{site[0]}/v1/models/calm/prompt", timeout=20).json()
    page.locator(".map").wait_for()
    card = page.locator("#prompt dl").inner_text()
    assert "mood: {text}" in card
    assert "bad (label 0), good (label 1)" in card
    assert "on 40 validation rows; answers below 100 % are abstained" in card
    assert page.locator("#prompt .numbers tbody").inner_text().split() == ["accuracy", "test", "87.5", "64"]
    words = page.locator("#prompt .tokens tbody tr").first.locator(".near > span").all_inner_texts()
    assert [word.rsplit(" ", 1)[0] for word in words] == [near["token"] for near in told["tokens"][0]]
    assert page.locator("#prompt .map circle").count() == len(told["map"]) == 8
    assert page.locator("#prompt .alike a").all_inner_texts() == [each["id"] for each in told["similar"]]
    page.locator("#prompt .alike a").first.click()
    page.wait_for_url(f"**/#{told['similar'][0]['id']}/prompt")


# -- nobody is harmed, everybody can read -----------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_task_is_called_and_says_is_text(visit, view):
    visitor = visit()
    page = visitor.page
    page.goto(f"{visitor.address}/#{quote(EVIL)}/{view}")
    sync_api.expect(page.locator("#description")).to_have_text(f"Is it {EVIL}?")
    assert page.get_by_role("combobox", name="Task").input_value() == EVIL
    if view == "ask":
        visitor.answer(f"{EVIL} too")
        page.get_by_text("What the model reads").click()
        assert page.locator("#ask pre").inner_text() == f"{EVIL} {EVIL} too"
        assert f"good {EVIL}" in page.locator("#ask .bars").inner_text()
    if view == "table":
        page.get_by_label("Rows, the first line").fill(f"text,{EVIL}\n{EVIL},x")
        page.get_by_role("button", name="Answer 1 row").click()
        sync_api.expect(page.locator("#table tbody td").first).to_have_text(EVIL)
    if view == "prompt":
        page.locator(".map").wait_for()
    page.get_by_role("combobox", name="Task").click()
    assert EVIL in page.get_by_role("option").first.inner_text()
    assert page.locator("body img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_and_every_text_can_be_read(visit, width, scheme):
    visitor = visit(viewport={"width": WIDTHS[width], "height": 800}, color_scheme=scheme)
    page = visitor.page
    papers = set()
    for view in VIEWS:
        page.goto(f"{visitor.address}/#calm/{view}")
        if view in ("ask", "compare"):
            page.locator(f"#{view}").get_by_label("text", exact=True).fill("good " * 40 + "x" * 200)
            page.locator(f"#{view} .go").click()
            page.locator(f"#{view} .verdict").first.wait_for()
        if view == "table":
            page.get_by_label("Rows, the first line").fill("text,wide\n" + "good,bad film that is quite long\n" * 12)
            page.get_by_role("button", name="Answer 12 rows").click()
            page.get_by_role("button", name="Download as CSV").wait_for()
        if view == "prompt":
            page.locator(".map").wait_for()
        page.get_by_role("combobox", name="Task").click()
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0, view
        found = page.evaluate(CONTRASTS)
        assert len(found) > 20
        assert [(words, round(ratio, 2)) for words, ratio, _ in found if ratio < ENOUGH] == [], view
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ({"rgb(253, 253, 252)"} if scheme == "light" else {"rgb(22, 24, 27)"})


def test_every_control_has_a_name_and_every_id_is_there_once(visit):
    visitor = visit()
    page = visitor.page
    for view in VIEWS:
        page.goto(f"{visitor.address}/#calm/{view}")
        page.locator(f"#{view} > *").first.wait_for()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, select, button, a[href], [role=region], progress')]
             .filter(one => one.checkVisibility() && one.getAttribute('aria-hidden') !== 'true')
             .filter(one => !(one.labels?.length || one.getAttribute('aria-label') || one.textContent.trim()))
             .map(one => one.outerHTML.slice(0, 90))"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    pointed = page.evaluate(
        """() => [...document.querySelectorAll('[aria-controls], [aria-labelledby]')]
             .map(one => one.getAttribute('aria-controls') ?? one.getAttribute('aria-labelledby'))"""
    )
    assert set(pointed) <= set(ids)
    page.get_by_role("tab", name="Ask").click()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.id") == "tab-prompt"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"


def test_a_key_is_given_once_as_a_password_and_opens_its_tasks(visit, folder, model):
    keys = [ApiKey(name="shop", sha256=hashed("shop-key"), tasks=("mood", "long"), per_minute=30)]
    with serving(folder, model, keys) as (address, _, _):
        assert httpx.get(address).headers["www-authenticate"].startswith("Basic")
        assert httpx.get(f"{address}/page/main.js").status_code == 401
        visitor = visit(address, http_credentials={"username": "anybody", "password": "shop-key"})
        page = visitor.open()
        page.get_by_role("combobox", name="Task").click()
        assert page.get_by_role("option").all_inner_texts() == ["long", "mood"]
        page.goto(f"{address}/#mood/prompt")
        page.locator(".map").wait_for()
        assert page.locator("#prompt .alike a").all_inner_texts() == ["long"], "of other tasks nothing is told"
        page.goto(f"{address}/#pair")
        sync_api.expect(page.locator("#problem")).to_have_text(re.compile("the key shop may not ask 'pair'"))
        visitor.forget("401", "403")


def test_a_key_that_is_gone_is_told_in_words(visit):
    visitor = visit()
    visitor.page.route("**/v1/models", lambda route: route.fulfill(status=401, json={"error": {"message": "no"}}))
    visitor.page.goto(visitor.address)
    problem = visitor.page.locator("#problem")
    sync_api.expect(problem).to_have_text(re.compile("The server wants a key.*give your key as the password"))
    visitor.forget("401")
