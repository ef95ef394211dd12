// The panel in which a table is answered: rows in, columns to fields, a progress bar, and a table to keep.

import { isAbort } from "./api.js";
import { answersTo } from "./batches.js";
import { decoded, parse, written } from "./csv.js";
import { count, fresh, make, percent, statusLine } from "./dom.js";

const SHOWN = 200; // rows on the page; the file has them all
const PASTED = 300; // milliseconds after the last letter

// Names of the columns that answers add: those of `mptune predict`, and others where the rows have such columns.
function addedColumns(task, columns, answers) {
  const wanted = [["answer", (a) => a.answer]];
  if (task.answers === "label") {
    wanted.push(["confidence", (a) => a.confidence?.toFixed(4)]);
    if (task.calibration?.threshold != null) wanted.push(["abstained", (a) => a.abstained]);
    for (const { word } of task.labels) wanted.push([`P(${word})`, (a) => a.probabilities?.[word].toFixed(4)]);
  }
  if (answers.some((a) => a?.problem)) wanted.push(["problem", (a) => a.problem]);
  const taken = new Set(columns);
  return wanted.map(([name, value]) => {
    let own = name;
    while (taken.has(own)) own += " (mptune)";
    taken.add(own);
    return { name: own, value: (a) => (a ? value(a) : "") };
  });
}

const rowsOf = (number) => (number === 1 ? "1 row" : `${count(number)} rows`);

function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // once the browser has it
}

// Where rows come from: a box to paste them into, which is also where a file may be dropped. got(table, name) is told.
function source(got, failed) {
  const id = fresh("rows");
  const box = make("textarea", { id, rows: 7, spellcheck: "false", placeholder: "text\nfirst row\nsecond row" });
  const accept = ".csv,.tsv,.txt,text/csv,text/tab-separated-values";
  const input = make("input", { type: "file", accept, class: "unseen" });
  const named = make("span", { class: "quiet" }, "or drop one here");
  const area = make("div", { class: "drop" }, make("div", { class: "field" },
    make("label", { for: id }, "Rows, the first line with the columns’ names"), box),
  make("div", { class: "row" }, make("label", { class: "button" }, input, "Choose a file"), named));
  let timer = 0;

  function take(text, name) {
    try {
      got(parse(text), name);
    } catch (error) {
      failed(error.message);
    }
  }

  async function open(file) {
    if (!file) return;
    box.value = "";
    named.textContent = file.name;
    take(await decoded(file), file.name.replace(/\.[^.]*$/, ""));
  }

  box.addEventListener("input", () => {
    clearTimeout(timer);
    named.textContent = "or drop one here";
    timer = setTimeout(() => (box.value.trim() ? take(box.value, "rows") : failed("")), PASTED);
  });
  input.addEventListener("change", () => { open(input.files[0]); input.value = ""; });
  area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("over"); });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    open(event.dataTransfer.files[0]);
  });
  return area;
}

// For each field the column that it is read from: the one of its name, or the only one.
function mapping(fields, columns) {
  const plain = (text) => text.trim().toLowerCase();
  return fields.map((field) => {
    const id = fresh("column");
    const same = columns.findIndex((column) => plain(column) === plain(field));
    const at = same < 0 && columns.length === 1 && fields.length === 1 ? 0 : same;
    const select = make("select", { id }, make("option", { value: "" }, "no column yet"),
      columns.map((column, n) => make("option", { value: n, selected: n === at }, column)));
    const label = make("label", { for: id }, `${field} is read from`);
    return { field, select, element: make("div", { class: "field" }, label, select) };
  });
}

function grid(table, added, answers) {
  const names = [...table.columns, ...added.map(({ name }) => name)];
  const head = make("tr", {}, names.map((name) => make("th", { scope: "col" }, name)));
  const rows = table.rows.slice(0, SHOWN).map((row, n) => make("tr", {},
    row.map((cell) => make("td", {}, cell)),
    added.map(({ value }, at) => make("td", { class: at ? null : "said" }, String(value(answers[n]) ?? "")))));
  return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Answers" },
    make("table", {}, make("thead", {}, head), make("tbody", {}, rows)));
}

export function tablePanel(root) {
  let task = null, table = null, name = "", wrong = "", running = null, links = [];
  const problem = make("p", { class: "problem", role: "alert", hidden: true });
  const status = statusLine();
  const columns = make("div", { class: "columns" });
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Rows answered", hidden: true });
  const results = make("div", {});
  const go = make("button", { type: "button", class: "go", click: () => (running ? running.abort() : run()) });
  const row = make("div", { class: "row" }, go, bar);

  function tell(message) {
    problem.textContent = message;
    problem.hidden = !message;
  }

  function build() {
    running?.abort();
    tell(wrong);
    results.replaceChildren();
    status.textContent = "";
    links = table ? mapping(task.fields, table.columns) : [];
    columns.replaceChildren(...links.map(({ element }) => element));
    row.hidden = !table?.rows.length;
    if (table) go.textContent = `Answer ${rowsOf(table.rows.length)}`;
  }

  function finish(answers, stopped) {
    const done = answers.filter(Boolean), bad = done.filter((a) => a.problem).length;
    const added = addedColumns(task, table.columns, answers);
    const unsure = done.filter((a) => a.abstained).length;
    const whole = `${rowsOf(done.length)} answered`;
    status.textContent = [
      stopped ? `Stopped after ${count(done.length)} of ${rowsOf(table.rows.length)}` : whole,
      bad ? `${count(bad)} could not be` : "",
      unsure ? `${count(unsure)} abstained (${percent(unsure / done.length)})` : "",
    ].filter(Boolean).join(" · ");
    const lines = () => [[...table.columns, ...added.map((c) => c.name)],
      ...table.rows.map((cells, n) => [...cells, ...added.map(({ value }) => value(answers[n]))])];
    const file = `${name}-${task.name}.csv`.replace(/[^\p{L}\p{N}._-]+/gu, "-");
    const save = () => download(file, written(lines(), table.delimiter));
    const few = table.rows.length > SHOWN
      ? make("span", { class: "quiet" }, `The first ${SHOWN} rows are shown; the file has them all.`) : null;
    results.replaceChildren(
      make("div", { class: "row" },
        make("button", { type: "button", click: save }, "Download as CSV"), few),
      grid(table, added, answers));
  }

  async function run() {
    const open = links.filter(({ select }) => select.value === "");
    if (open.length) {
      tell(`Say which column holds ${open.map(({ field }) => field).join(", ")}.`);
      return open[0].select.focus();
    }
    const own = new AbortController(), [mine, asked, start] = [table, task, go.textContent];
    const places = links.map(({ field, select }) => [field, Number(select.value)]);
    const rows = table.rows.map((cells) => Object.fromEntries(places.map(([field, at]) => [field, cells[at]])));
    const answers = new Array(rows.length);
    let done = 0, failed = null;
    running = own;
    tell("");
    results.replaceChildren();
    go.textContent = "Stop";
    bar.hidden = false;
    bar.value = 0;
    status.textContent = "Answering";
    try {
      const waits = (seconds) => { status.textContent = `The server has much to do; on in ${count(seconds)} s`; };
      for await (const batch of answersTo(task, rows, own.signal, waits)) {
        for (const each of batch) answers[each.number] = each;
        done += batch.length;
        bar.value = done / rows.length;
        status.textContent = `${count(done)} of ${count(rows.length)} rows`;
      }
    } catch (error) {
      if (!isAbort(error)) failed = error.message;
    }
    running = null;
    bar.hidden = true;
    if (mine !== table || asked !== task) return undefined; // another is there meanwhile
    go.textContent = start;
    finish(answers, done < rows.length);
    return failed ? tell(failed) : undefined;
  }

  const given = source((found, from) => {
    [table, name] = [found, from];
    wrong = found.rows.length ? "" : "It has a first line with names of columns, and no row below.";
    build();
  }, (message) => {
    [table, wrong] = [null, message];
    build();
  });
  root.append(given, columns, row, problem, status, results);
  row.hidden = true;
  return {
    show(picked) {
      task = picked;
      build();
    },
  };
}
