// The panel that says what a task is: its card and scores, what its soft tokens are near, which tasks are like it.

import { ask, isAbort, pathOf } from "./api.js";
import { count, make, roundPercent } from "./dom.js";
import { taskMap } from "./map.js";

const NAMED = 6; // tasks with their names in the map

const row = (term, ...held) => [make("dt", {}, term), make("dd", {}, held)];
const cosineText = (cosine) => cosine.toFixed(2).replace("-", "\u2212");

function calibrated(found) {
  if (!found) return [];
  const threshold = found.threshold === null ? "" : `; answers below ${roundPercent(found.threshold)} are ` +
    `abstained, for ${roundPercent(found.precision)} right ones among the others`;
  return row("Calibrated", `on ${count(found.rows)} ${found.split} rows${threshold}`);
}

function card(task) {
  const words = task.labels.map(({ label, word }) => (label === word ? word : `${word} (label ${label})`)).join(", ");
  return make("dl", {},
    row("Reads", make("code", {}, task.template)),
    row("Fields", task.fields.join(", ")),
    row("Answers", task.labels.length ? words : "with a text of its own"),
    calibrated(task.calibration),
    row("Soft tokens", count(task.prompt_length)),
    row("Tokens of a text", `at most ${count(task.max_input_tokens)}`),
    row("Folder", task.root),
    task.versions.length > 1 ? row("Versions", `${task.versions.join(", ")}; ${task.root} answers`) : []);
}

function table(caption, columns, rows, kind) {
  const head = make("tr", {}, columns.map((name) => make("th", { scope: "col" }, name)));
  const body = rows.map(([first, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, first), cells.map((cell) => make("td", {}, cell))));
  return make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption },
    make("table", { class: kind, "aria-label": caption }, make("thead", {}, head), make("tbody", {}, body)));
}

function scores(task) {
  if (!task.scores.length) return make("p", { class: "quiet" }, "Its card has no scores: nobody has evaluated it.");
  const rows = task.scores.map(({ metric, split, value, examples }) =>
    [metric, split, value.toFixed(1), count(examples)]);
  return table("Scores", ["metric", "split", "score", "rows"], rows, "numbers");
}

function tokens(told) {
  const word = ({ token, cosine }) => make("span", {}, token, " ", make("small", {}, cosineText(cosine)));
  const rows = told.tokens.map((near, n) => [count(n + 1), make("span", { class: "near" }, near.map(word))]);
  return [
    make("p", { class: "quiet note" }, "Of each soft token the words of the vocabulary whose embeddings point most " +
      "nearly the same way, with the cosine. A soft token is no word: near 1 it almost is one, near 0 the words say " +
      "little."),
    table("Words near the soft tokens", ["soft token", "nearest words"], rows, "tokens"),
  ];
}

function alike(told, address) {
  if (!told.similar.length) {
    return [make("p", { class: "quiet" }, "There is no other task whose prompt has the same length.")];
  }
  const few = told.compared < told.others;
  const seen = few ? ` ${count(told.compared)} of ${count(told.others)} other tasks were compared.` : "";
  const near = told.similar.map(({ id, cosine }) => make("li", {},
    make("a", { href: address(id) }, id), " ", make("span", { class: "quiet" }, cosineText(cosine))));
  return [
    make("p", { class: "quiet note" }, `By the cosine of whole prompts.${seen}`),
    make("div", { class: "likes" },
      taskMap(told.map, told.similar.slice(0, NAMED).map(({ id }) => id), address),
      make("ol", { class: "alike" }, near)),
  ];
}

// address(name): of another task's panel.
export function promptPanel(root, address) {
  let running = null;
  return {
    async show(task) {
      running?.abort();
      const own = new AbortController();
      running = own;
      const more = make("div", { "aria-live": "polite" }, make("p", { class: "quiet later" }, "Comparing prompts …"));
      root.replaceChildren(card(task), make("h2", {}, "Scores"), scores(task), more);
      try {
        const told = await ask(pathOf(task.name, "/prompt"), undefined, own.signal);
        more.removeAttribute("aria-live"); // a hundred words are read when somebody goes there, and not at once
        more.replaceChildren(make("h2", {}, "Tasks like it"), ...alike(told, address),
          make("h2", {}, "Words near its soft tokens"), ...tokens(told));
      } catch (error) {
        if (!isAbort(error)) more.replaceChildren(make("p", { class: "problem" }, error.message));
      }
    },
  };
}
