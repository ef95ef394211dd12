// The fields of a task's template as boxes. What was written stays when another task is picked that has such a field.

import { fresh, make } from "./dom.js";

const kept = new Map(); // field name to its text

export function fieldBoxes(fields, submit) {
  const boxes = fields.map((field) => {
    const id = fresh("field");
    const box = make("textarea", { id, rows: fields.length > 2 ? 2 : 4, spellcheck: "false" });
    box.value = kept.get(field) ?? "";
    box.addEventListener("input", () => kept.set(field, box.value));
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        submit();
      }
    });
    return { field, box, element: make("div", { class: "field" }, make("label", { for: id }, field), box) };
  });
  return {
    elements: boxes.map((each) => each.element),
    row: () => Object.fromEntries(boxes.map(({ field, box }) => [field, box.value])),
  };
}
