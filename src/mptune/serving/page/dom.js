// Elements are made here. A text only ever becomes a text node: what a task, a file or a model says is never HTML.

const SVG = "http://www.w3.org/2000/svg";

// Settings are attributes; those that are functions hear an event, as {click: go}; true and false switch one.
function filled(element, settings, children) {
  for (const [name, value] of Object.entries(settings)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const make = (tag, settings = {}, ...children) => filled(document.createElement(tag), settings, children);

export const draw = (tag, settings = {}, ...children) => filled(document.createElementNS(SVG, tag), settings, children);

let made = 0;

// An id that no other element has.
export const fresh = (prefix) => `${prefix}-${++made}`;

// A line in which a screen reader hears what has happened. It stands empty from the start, else nothing is heard.
export const statusLine = () => make("p", { role: "status", class: "status" });

export const count = (number) => number.toLocaleString("en-GB");

export const percent = (share) => {
  // Never "100 %" or "0 %" of what is not quite certain.
  if (share >= 0.9995 && share < 1) return "> 99.9 %";
  if (share < 0.0005 && share > 0) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
};

// The same of a number that somebody has set.
export const roundPercent = (share) => percent(share).replace(".0 %", " %");
