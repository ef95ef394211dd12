// A task is picked from thousands: a box in which one types, and a list of the first that fit.

import { count, fresh, make } from "./dom.js";

const SHOWN = 50;

// Names that hold every word that was typed, those that begin so first.
export function fitting(tasks, typed) {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const found = tasks.filter((task) => words.every((word) => task.key.includes(word)));
  if (!words.length) return found;
  const rank = (task) => (task.key === words[0] ? 0 : task.key.startsWith(words[0]) ? 1 : 2);
  return found.map((task) => [rank(task), task]).sort((a, b) => a[0] - b[0]).map(([, task]) => task);
}

// tasks: [{id, key, parent}]; chosen(id) is told of every choice.
export function picker(label, tasks, chosen) {
  const ids = { input: fresh("pick"), list: fresh("list") };
  const input = make("input", {
    id: ids.input, type: "text", role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false",
    "aria-controls": ids.list, autocomplete: "off", autocapitalize: "none", spellcheck: "false",
  });
  const list = make("ul", { id: ids.list, role: "listbox", "aria-label": label });
  const more = make("p", { class: "quiet more" });
  const popup = make("div", { class: "popup", hidden: true }, list, more);
  const said = make("p", { class: "unseen", role: "status" });
  let current = "", options = [], at = -1;

  function mark(number) {
    at = number;
    [...list.children].forEach((each, n) => each.setAttribute("aria-selected", String(n === at)));
    if (at < 0) input.removeAttribute("aria-activedescendant");
    else {
      input.setAttribute("aria-activedescendant", list.children[at].id);
      list.children[at].scrollIntoView({ block: "nearest" });
    }
  }

  function open(typed) {
    const found = fitting(tasks, typed);
    options = found.slice(0, SHOWN);
    list.replaceChildren(...options.map((task, n) =>
      make("li", { id: `${ids.list}-${n}`, role: "option", "aria-selected": "false",
        mousedown: (event) => event.preventDefault(), // the box keeps the focus
        click: () => choose(task.id) },
      make("span", {}, task.id), task.alias ? make("small", {}, `another name of ${task.parent}`) : null)));
    const left = found.length - options.length;
    more.textContent = left ? `${count(left)} more; type on to find them` : "";
    if (!found.length) more.textContent = `None of ${count(tasks.length)} tasks is called so`;
    more.hidden = !more.textContent;
    said.textContent = found.length === 1 ? "1 task fits" : `${count(found.length)} tasks fit`;
    popup.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark(typed && found.length ? 0 : options.findIndex((task) => task.id === current));
  }

  function close() {
    popup.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    said.textContent = "";
    input.value = current;
  }

  function choose(id) {
    current = id;
    close();
    input.select();
    chosen(id);
  }

  input.addEventListener("input", () => open(input.value));
  input.addEventListener("focus", () => input.select());
  input.addEventListener("click", () => popup.hidden && open(""));
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.key in steps) {
      event.preventDefault();
      if (popup.hidden) open("");
      else if (options.length) {
        const far = Math.abs(steps[event.key]) > 1;
        const to = at + steps[event.key];
        mark(far ? Math.max(0, Math.min(options.length - 1, to)) : (to + options.length) % options.length);
      }
    } else if (event.key === "Enter" && !popup.hidden && at >= 0) {
      event.preventDefault();
      choose(options[at].id);
    } else if (event.key === "Escape" && !popup.hidden) {
      event.preventDefault();
      close();
    }
  });

  const element = make("div", { class: "picker" }, make("label", { for: ids.input }, label), input, popup, said);
  return {
    element,
    set(id) {
      current = id;
      input.value = id;
    },
  };
}
