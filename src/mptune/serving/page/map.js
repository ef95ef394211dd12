// Prompts as points: those that are alike lie near each other.

import { draw } from "./dom.js";

const [WIDE, HIGH, EDGE] = [640, 420, 24];
const NARROW = matchMedia("(max-width: 720px)"); // there the picture is half as wide, and its letters twice as large

const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

// Where a name stands beside its point: right of it, or left where it would leave the picture.
function boxOf(point) {
  const size = Math.min(point.id.length, 24) * (NARROW.matches ? 14 : 7.4); // a letter's width, about
  const high = NARROW.matches ? 16 : 9;
  const fits = point.x + 12 + size < WIDE;
  const left = fits ? point.x + 12 : point.x - 12 - size;
  return { left, right: left + size, top: point.y - high, bottom: point.y + high, anchor: fits ? "start" : "end" };
}

// places: [{id, x, y}], the first of them the task itself; named: ids whose names are written; address(id) links one.
export function taskMap(places, named, address) {
  const reach = (key) => Math.max(...places.map((place) => Math.abs(place[key])), 1e-9);
  const scale = Math.min((WIDE / 2 - EDGE) / reach("x"), (HIGH / 2 - EDGE) / reach("y"));
  const points = places.map(({ id, x, y }) => ({ id, x: WIDE / 2 + scale * x, y: HIGH / 2 - scale * y }));
  const taken = [];
  const texts = points.filter(({ id }, n) => n === 0 || named.includes(id)).map((point) => {
    const box = boxOf(point);
    if (taken.some((other) => meets(box, other))) return null;
    taken.push(box);
    const own = point === points[0];
    const short = point.id.length > 24 ? `${point.id.slice(0, 23)}…` : point.id;
    const x = box.anchor === "start" ? point.x + 12 : point.x - 12;
    const y = point.y + (NARROW.matches ? 8 : 4);
    return draw("text", { x, y, "text-anchor": box.anchor, class: own ? "own" : null }, short);
  });
  const dots = points.map(({ id, x, y }, n) => {
    const r = (n ? 4 : 6) * (NARROW.matches ? 1.6 : 1);
    const settings = { cx: x.toFixed(1), cy: y.toFixed(1), r, class: n ? null : "own" };
    const dot = draw("circle", settings, draw("title", {}, id));
    // By keyboard, the list beside the map leads to the same places.
    return n ? draw("a", { href: address(id), tabindex: "-1", "aria-hidden": "true" }, dot) : dot;
  });
  const [own, ...others] = dots;
  const label = `Map of ${places.length} prompts; those that are alike lie near each other, and are listed beside it.`;
  return draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", class: "map", "aria-label": label },
    others, own, texts.filter(Boolean));
}
