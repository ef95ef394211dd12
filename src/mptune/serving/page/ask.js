// The panel in which one task is asked.

import { answer } from "./answers.js";
import { isAbort } from "./api.js";
import { make, statusLine } from "./dom.js";
import { fieldBoxes } from "./form.js";

// A form whose button starts work and stops it again; work(signal) returns a sentence of what came of it.
export function working(label, boxes, work) {
  const status = statusLine();
  const problem = make("p", { class: "problem", role: "alert", hidden: true });
  const button = make("button", { type: "submit", class: "go" }, label);
  let running = null;

  // Who sees the answer needs no sentence of it.
  function tell(said, seen = false) {
    status.classList.toggle("unseen", seen);
    status.textContent = said;
  }

  async function run() {
    if (running) return running.abort();
    const own = new AbortController();
    running = own;
    button.textContent = "Stop";
    problem.hidden = true;
    tell("");
    try {
      const said = await work(own.signal);
      if (!own.signal.aborted) tell(said, true);
    } catch (error) {
      if (isAbort(error)) tell(own.left ? "" : "Stopped");
      else {
        problem.textContent = error.message;
        problem.hidden = false;
      }
    } finally {
      running = null;
      button.textContent = label;
    }
  }

  const submit = (event) => {
    event.preventDefault();
    run();
  };
  const form = make("form", { submit }, boxes,
    make("div", { class: "row" }, button, make("span", { class: "quiet hint" }, "Ctrl + Enter")), problem, status);
  return {
    form,
    run,
    leave() {
      if (running) running.left = true;
      running?.abort();
    },
  };
}

export function askPanel(root) {
  let left = () => {};
  return {
    show(task) {
      left();
      const box = make("div", { class: "answer", role: "region", "aria-label": "Answer" });
      const boxes = fieldBoxes(task.fields, () => form.run());
      const form = working("Answer", boxes.elements, (signal) => answer(task, boxes.row(), box, signal));
      left = form.leave;
      box.append(make("p", { class: "quiet" }, task.answers === "label"
        ? `The answer will be one of ${task.labels.map(({ word }) => word).join(", ")}.`
        : "The answer will be written here."));
      root.replaceChildren(make("div", { class: "sides" }, form.form, box));
    },
  };
}
