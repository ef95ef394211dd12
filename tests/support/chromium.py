"""The system's Chromium, where there is one, and what is measured of a page in it."""

import shutil

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
ENOUGH = 4.5  # contrast of text, WCAG 2.2 AA

# The colours below a text: of boxes those of its ancestors, of a chart those of the shapes that are painted below it.
CONTRASTS = """
() => {
  const parse = text => {
    const found = text.match(/[\\d.]+/g)?.map(Number) ?? [0, 0, 0, 0];
    return [found[0], found[1], found[2], found[3] ?? 1];
  };
  const over = (top, bottom) => [0, 1, 2].map(i => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
  const light = colour => {
    const [r, g, b] = colour.map(c => (c /= 255, c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = element => {
    const colours = [];
    for (let e = element; e; e = e.parentElement) colours.push(parse(getComputedStyle(e).backgroundColor));
    return colours.reverse().reduce((bottom, top) => over(top, bottom), [255, 255, 255, 1]);
  };
  const painted = text => {
    const box = text.getBoundingClientRect();
    let colour = paper(text.closest('svg').parentElement);
    for (const shape of text.closest('svg').querySelectorAll('path')) {
      const style = getComputedStyle(shape), its = shape.getBoundingClientRect();
      const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
      const below = its.left <= x && x <= its.right && its.top <= y && y <= its.bottom;
      if (style.fill === 'none' || !below || shape.closest('defs')) continue;
      const fill = parse(style.fill);
      colour = over([...fill.slice(0, 3), fill[3] * style.opacity * style.fillOpacity], colour);
    }
    return colour;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, words = walker.currentNode.textContent.trim();
    if (!words || !element.checkVisibility()) continue;
    const inside = element instanceof SVGElement;
    const ink = parse(inside ? getComputedStyle(element).fill : getComputedStyle(element).color);
    const ground = inside ? painted(element) : paper(element);
    const [a, b] = [light(over(ink, ground)), light(ground)];
    found.push([words, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), inside]);
  }
  return found;
}
"""
