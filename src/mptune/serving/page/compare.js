// The panel in which two tasks answer the same row, side by side.

import { answer } from "./answers.js";
import { working } from "./ask.js";
import { ask, isAbort, pathOf } from "./api.js";
import { make } from "./dom.js";
import { fieldBoxes } from "./form.js";
import { picker } from "./picker.js";

// Fields that are filled in for two tasks. Where each reads one text, it is the same text, whatever they call it.
function shared(one, other) {
  if (one.fields.length === 1 && other.fields.length === 1) {
    const [first, second] = [one.fields[0], other.fields[0]];
    return { fields: [first], rows: (row) => [row, { [second]: row[first] }] };
  }
  const only = (task, row) => Object.fromEntries(task.fields.map((field) => [field, row[field]]));
  return { fields: [...new Set([...one.fields, ...other.fields])], rows: (row) => [only(one, row), only(other, row)] };
}

// tasks: all that can be picked; chosen(id) is told which other one was.
export function comparePanel(root, tasks, chosen) {
  const other = picker("Compared with", tasks, chosen);
  const body = make("div", {});
  const problem = make("p", { class: "problem", role: "alert", hidden: true });
  root.append(make("div", { class: "second" }, other.element), problem, body);
  let left = () => {}, turn = 0;

  function build(one, two) {
    const { fields, rows } = shared(one, two);
    const sides = [one, two].map((task) => {
      const box = make("div", { class: "answer" });
      return { task, box, element: make("section", { class: "side", "aria-label": task.name },
        make("h2", {}, task.name), make("p", { class: "quiet" }, task.description), box) };
    });
    const boxes = fieldBoxes(fields, () => form.run());
    const form = working("Answer both", boxes.elements, async (signal) => {
      const asked = rows(boxes.row());
      const said = await Promise.allSettled(sides.map(({ task, box }, n) => answer(task, asked[n], box, signal)));
      said.forEach(({ reason }, n) => {
        if (reason && !isAbort(reason)) {
          sides[n].box.replaceChildren(make("p", { class: "problem" }, reason.message));
        }
      });
      const stopped = said.find(({ reason }) => reason && isAbort(reason));
      if (stopped) throw stopped.reason;
      return said.map(({ value, reason }, n) => `${sides[n].task.name}: ${value ?? reason.message}`).join("; ");
    });
    left = form.leave;
    body.replaceChildren(form.form, make("div", { class: "two" }, sides.map((side) => side.element)));
  }

  return {
    async show(task, name) {
      left();
      const own = ++turn;
      const wanted = name ?? tasks.find(({ id }) => id !== task.name)?.id ?? task.name;
      other.set(wanted);
      problem.hidden = true;
      body.replaceChildren(); // until the other has come, nothing can be asked of the last two
      try {
        const told = { ...await ask(pathOf(wanted)), name: wanted };
        if (own === turn) build(task, told);
      } catch (error) {
        if (own !== turn) return;
        problem.textContent = error.message;
        problem.hidden = false;
      }
    },
  };
}
