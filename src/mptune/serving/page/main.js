// The page: which task is picked, which panel is open. Both stand in the address, behind #, so that it can be sent.

import { askPanel } from "./ask.js";
import { ask, pathOf } from "./api.js";
import { comparePanel } from "./compare.js";
import { count } from "./dom.js";
import { picker } from "./picker.js";
import { promptPanel } from "./prompt.js";
import { tablePanel } from "./table.js";

const VIEWS = ["ask", "compare", "table", "prompt"];
const byId = (id) => document.getElementById(id);
const tabs = [...byId("tabs").children];
let panels, picked, tasks = [], shown = null, turn = 0;

// #task/view/other task
function place() {
  const parts = location.hash.slice(1).split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return ""; // not from here
    }
  });
  return { name: parts[0] || tasks[0].id, view: VIEWS.includes(parts[1]) ? parts[1] : "ask", other: parts[2] || null };
}

export const addressOf = (...parts) => `#${parts.filter(Boolean).map(encodeURIComponent).join("/")}`;

const go = (...parts) => { location.hash = addressOf(...parts); };

function tell(message) {
  byId("problem").textContent = message ?? "";
  byId("problem").hidden = !message;
}

async function follow() {
  const { name, view, other } = place();
  const own = ++turn, there = shown?.name === name;
  const typing = !there && byId(view).contains(document.activeElement);
  picked.set(name);
  tabs.forEach((tab) => {
    const chosen = tab.dataset.view === view;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    byId(tab.dataset.view).hidden = !(chosen && there); // a panel of another task, or of none yet, takes nothing
  });
  try {
    const task = there ? shown : { ...await ask(pathOf(name)), name };
    if (own !== turn) return;
    tell(null);
    byId(view).hidden = false;
    if (task !== shown) VIEWS.forEach((each) => { panels[each].stale = true; });
    shown = task;
    byId("description").textContent = task.description;
    document.title = `${name} · mptune`;
    const key = other ?? "";
    if (panels[view].stale || panels[view].of !== key) panels[view].show(task, other);
    panels[view].stale = false;
    panels[view].of = key;
    if (typing) byId(view).querySelector("textarea")?.focus(); // who types already goes on in the new box
  } catch (error) {
    if (own !== turn) return;
    shown = null;
    byId("description").textContent = "";
    VIEWS.forEach((each) => { byId(each).hidden = true; });
    tell(error.message);
  }
}

byId("tabs").addEventListener("click", (event) => {
  const view = event.target.dataset.view;
  if (view) go(place().name, view);
});
byId("tabs").addEventListener("keydown", (event) => {
  const at = tabs.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const tab = tabs[(to + tabs.length) % tabs.length];
  tab.focus();
  go(place().name, tab.dataset.view);
});

async function begin() {
  try {
    const all = (await ask("/v1/models")).data;
    const names = new Set(all.map(({ id }) => id));
    const alias = (parent) => parent !== all[0].id && names.has(parent);
    tasks = all.filter(({ parent }) => parent !== null)
      .map(({ id, parent }) => ({ id, parent, key: id.toLowerCase(), alias: alias(parent) }))
      .sort((one, two) => (one.key < two.key ? -1 : 1));
    byId("server").textContent = `${all[0].id} · ${tasks.length === 1 ? "1 task" : `${count(tasks.length)} tasks`}`;
    if (!tasks.length) return tell("This server has no task yet, or none that your key may ask.");
  } catch (error) {
    return tell(error.message);
  }
  picked = picker("Task", tasks, (name) => go(name, place().view));
  byId("picker").append(picked.element);
  panels = {
    ask: askPanel(byId("ask")),
    compare: comparePanel(byId("compare"), tasks, (name) => go(place().name, "compare", name)),
    table: tablePanel(byId("table")),
    prompt: promptPanel(byId("prompt"), (name) => addressOf(name, "prompt")),
  };
  byId("main").hidden = false;
  addEventListener("hashchange", follow);
  return follow();
}

begin();
