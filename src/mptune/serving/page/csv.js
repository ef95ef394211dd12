// Tables as text: commas, semicolons or tabs, quoted cells with lines and quotes in them, as spreadsheets write them.

const MARK = "\ufeff"; // tells spreadsheets that a file is UTF-8

// Which sign divides the cells: the one that stands most often in the first line, outside of quotes. None where that
// line names one column: its texts may have commas.
export function delimiterOf(text) {
  const counts = { ",": 0, ";": 0, "\t": 0 };
  let quoted = false;
  for (const letter of text) {
    if (letter === '"') quoted = !quoted;
    else if (!quoted && (letter === "\n" || letter === "\r")) break;
    else if (!quoted && letter in counts) counts[letter] += 1;
  }
  const most = Object.keys(counts).reduce((best, sign) => (counts[sign] > counts[best] ? sign : best));
  return counts[most] ? most : null;
}

function lines(text, delimiter) {
  const found = [];
  let line = [], cell = "", at = 0;
  const ends = () => { line.push(cell); cell = ""; };
  while (at < text.length) {
    const letter = text[at];
    if (letter === '"' && cell === "") {
      // To the quote that closes it; two of them are one that is written.
      let close = text.indexOf('"', at + 1);
      while (close >= 0 && text[close + 1] === '"') close = text.indexOf('"', close + 2);
      if (close < 0 && delimiter !== null) throw new Error(`A quote in line ${lineOf(text, at)} is never closed.`);
      if (close >= 0 && [delimiter, "\n", "\r", undefined].includes(text[close + 1])) {
        cell = text.slice(at + 1, close).replaceAll('""', '"');
        at = close + 1;
      } else {
        cell = letter; // "Fine", she said: quotes of the text itself
        at += 1;
      }
    } else if (letter === delimiter) {
      ends();
      at += 1;
    } else if (letter === "\n" || letter === "\r") {
      ends();
      found.push(line);
      line = [];
      at += letter === "\r" && text[at + 1] === "\n" ? 2 : 1;
    } else {
      cell += letter;
      at += 1;
    }
  }
  if (cell !== "" || line.length) {
    ends();
    found.push(line);
  }
  return found;
}

const lineOf = (text, at) => text.slice(0, at).split("\n").length;

// {columns, rows, delimiter} of a text whose first line has the names; rows are lists as long as that line.
export function parse(text) {
  const whole = text.startsWith(MARK) ? text.slice(1) : text;
  const delimiter = delimiterOf(whole);
  const [first, ...rest] = lines(whole, delimiter).filter((line) => line.some((cell) => cell.trim()));
  if (!first) throw new Error("There is no row in it.");
  const columns = named(first);
  const long = rest.findIndex((line) => line.length > columns.length);
  if (long >= 0) {
    throw new Error(`Row ${long + 1} has ${rest[long].length} cells, and the first line names ${columns.length} ` +
      "columns. A text with a comma in it wants quotes around it.");
  }
  return { columns, delimiter: delimiter ?? ",", rows: rest.map((line) => columns.map((_, n) => line[n] ?? "")) };
}

// Names of columns, each once.
function named(first) {
  const seen = new Set();
  return first.map((cell, n) => {
    const name = cell.trim() || `column ${n + 1}`;
    let own = name;
    for (let again = 2; seen.has(own); again += 1) own = `${name} (${again})`;
    seen.add(own);
    return own;
  });
}

export function written(rows, delimiter) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /["\r\n]/.test(text) || text.includes(delimiter) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return MARK + rows.map((row) => `${row.map(cell).join(delimiter)}\r\n`).join("");
}

// The text of a file: UTF-8 or UTF-16 by its mark, else UTF-8, else as spreadsheets of old wrote it.
export async function decoded(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const wide = { "255,254": "utf-16le", "254,255": "utf-16be" }[bytes.slice(0, 2).join()];
  if (wide) return new TextDecoder(wide).decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}
