// Rows of a table answered in batches: a bad row costs itself and no other, and a busy server is waited for.

import { ask } from "./api.js";

const ROWS = 100;
const LETTERS = 300_000; // of a batch: far below the bytes that a server takes at once
const TRIES = 8;

function* batches(rows) {
  let batch = [], letters = 0;
  for (const [number, row] of rows.entries()) {
    const own = Object.values(row).reduce((sum, text) => sum + text.length, 0);
    if (batch.length && (batch.length === ROWS || letters + own > LETTERS)) {
      yield batch;
      batch = [];
      letters = 0;
    }
    batch.push({ number, row });
    letters += own;
  }
  if (batch.length) yield batch;
}

function rest(seconds, signal) {
  return new Promise((done, failed) => {
    const stop = () => { clearTimeout(timer); failed(signal.reason); };
    const timer = setTimeout(() => { signal.removeEventListener("abort", stop); done(); }, 1000 * seconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

async function patiently(path, body, signal, waits) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask(path, body, signal);
    } catch (error) {
      if (!(error.seconds && (error.status === 429 || error.status === 503)) || tries === TRIES) throw error;
      waits(error.seconds);
      await rest(error.seconds, signal);
    }
  }
}

async function asked(task, rows, signal, waits) {
  if (task.answers === "label") {
    return (await patiently("/v1/classify", { model: task.name, input: rows }, signal, waits)).data;
  }
  const told = await patiently("/v1/completions", { model: task.name, prompt: rows }, signal, waits);
  return told.choices.map(({ text }) => ({ answer: text }));
}

// Answers to a batch; where it is refused for what stands in it, of its halves.
async function answered(task, batch, signal, waits) {
  try {
    const found = await asked(task, batch.map(({ row }) => row), signal, waits);
    return batch.map(({ number }, n) => ({ number, ...found[n] }));
  } catch (error) {
    if (![400, 413, 422].includes(error.status)) throw error;
    if (batch.length === 1) return [{ number: batch[0].number, problem: error.message.replace(/^input 0: /, "") }];
    const half = batch.length >> 1;
    return [...await answered(task, batch.slice(0, half), signal, waits),
      ...await answered(task, batch.slice(half), signal, waits)];
  }
}

// Yields the answers to rows, a batch at a time. waits(seconds) is told when the server has too much to do.
export async function* answersTo(task, rows, signal, waits) {
  for (const batch of batches(rows)) yield await answered(task, batch, signal, waits);
}
