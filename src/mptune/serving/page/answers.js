// One row's answer: asked for, and shown as bars or as a text that grows.

import { ask, events, Failure } from "./api.js";
import { count, make, percent, roundPercent } from "./dom.js";

const SHOWN = 10; // label words; a task may have a hundred

// Ask a task for a row, and show what comes in a box. Returns a sentence of it for a screen reader.
export async function answer(task, row, box, signal) {
  box.setAttribute("aria-busy", "true");
  const began = performance.now();
  const reading = ask("/v1/render", { model: task.name, input: row }, signal);
  reading.catch(() => {}); // the answer's own request tells of the same slip
  try {
    const shown = task.answers === "label"
      ? await labelled(task, row, box, signal, began)
      : await written(task, row, box, signal, began);
    box.append(readText(task, (await reading).data[0].text, shown.tokens));
    return shown.said;
  } catch (error) {
    box.replaceChildren();
    throw error;
  } finally {
    box.removeAttribute("aria-busy");
  }
}

async function labelled(task, row, box, signal, began) {
  const told = await ask("/v1/classify", { model: task.name, input: [row] }, signal);
  const milliseconds = performance.now() - began;
  const found = told.data[0];
  box.replaceChildren(bars(task, found), facts(milliseconds, told.usage));
  return { tokens: told.usage.prompt_tokens,
    said: `${found.answer}, ${percent(found.confidence)}${found.abstained ? ", abstained" : ""}` };
}

function bars(task, found) {
  const ranked = Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]);
  const values = new Map(task.labels.map(({ label, word }) => [word, label]));
  const items = ranked.map(([word, share]) => {
    const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("span", {}));
    bar.firstChild.style.inlineSize = `${100 * share}%`;
    const value = values.get(word);
    const label = value !== undefined && value !== word ? make("small", {}, `label ${value}`) : null;
    return make("li", { class: word === found.answer ? "best" : null },
      make("span", { class: "word" }, word, " ", label), make("span", { class: "share" }, percent(share)), bar);
  });
  const rest = items.length > SHOWN + 2 ? items.splice(SHOWN) : [];
  return make("div", {},
    make("p", { class: "verdict" }, make("strong", {}, found.answer), ` ${percent(found.confidence)}`),
    confidence(task, found),
    make("ol", { class: "bars", "aria-label": "Probabilities of the labels" }, items),
    rest.length ? make("details", {}, make("summary", {}, `${count(rest.length)} more labels`),
      make("ol", { class: "bars", start: SHOWN + 1 }, rest)) : null);
}

function confidence(task, found) {
  if (found.abstained === null) return null;
  const least = roundPercent(task.calibration.threshold);
  return found.abstained
    ? make("p", { class: "abstained" }, make("strong", {}, "Abstained. "),
      `Below ${least}, the least confidence at which this task's answers stand: somebody should look.`)
    : make("p", { class: "quiet" }, `Stands: at or above ${least}, the least confidence of this task.`);
}

async function written(task, row, box, signal, began) {
  const text = make("p", { class: "written" });
  box.replaceChildren(text);
  let reason = null, usage = null, first = null;
  const asked = { model: task.name, prompt: row, stream_options: { include_usage: true } };
  for await (const event of events("/v1/completions", asked, signal)) {
    for (const choice of event.choices) {
      if (choice.text) first ??= performance.now() - began;
      text.append(choice.text);
      reason = choice.finish_reason ?? reason;
    }
    usage = event.usage ?? usage;
  }
  if (reason === null || usage === null) throw new Failure("The connection broke off before the answer was whole.");
  const said = text.textContent || "Nothing was written";
  if (!text.textContent) text.replaceChildren(make("em", { class: "quiet" }, said));
  const cut = reason === "length" ? "cut at its greatest length" : null;
  const begins = first === null ? null : `first words after ${count(Math.round(first))} ms`;
  box.append(facts(performance.now() - began, usage, begins, cut));
  return { tokens: usage.prompt_tokens, said };
}

function facts(milliseconds, usage, ...more) {
  const tokens = [`${count(usage.prompt_tokens)} tokens read`];
  if (usage.completion_tokens) tokens.push(`${count(usage.completion_tokens)} written`);
  const parts = [`${count(Math.round(milliseconds))} ms`, ...tokens, ...more];
  return make("p", { class: "quiet facts" }, parts.filter(Boolean).join(" · "));
}

function readText(task, text, tokens) {
  const full = tokens - task.prompt_length >= task.max_input_tokens;
  const cut = full ? ` This task reads ${count(task.max_input_tokens)} tokens; what is longer was cut.` : "";
  return make("details", { class: "read" }, make("summary", {}, "What the model reads"),
    make("p", { class: "quiet" }, `Behind ${count(task.prompt_length)} soft tokens stands this text.${cut}`),
    make("pre", { tabindex: "0" }, text));
}
