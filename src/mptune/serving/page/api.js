// What is asked of the server, and how a refusal is told in words.

export class Failure extends Error {
  constructor(message, status = 0, seconds = null) {
    super(message);
    this.status = status;
    this.seconds = seconds; // after which one may ask again
  }
}

export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";

const WANTS_KEY = "The server wants a key, and has none or another one of this page. " +
  "Load the page again, and give your key as the password; the user name may be anything.";
const SILENT = "The server does not answer. Is it still running, and is there a way to it from here?";

async function asked(path, body, signal) {
  const how = body === undefined
    ? { signal }
    : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  let response;
  try {
    response = await fetch(path, how);
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Failure(SILENT);
  }
  if (response.ok) return response;
  if (response.status === 401) throw new Failure(WANTS_KEY, 401);
  let said = `The server answers with ${response.status} and no reason.`;
  try {
    said = (await response.json()).error.message;
  } catch (error) {
    if (isAbort(error)) throw error;
  }
  const seconds = Number(response.headers.get("Retry-After"));
  throw new Failure(said, response.status, seconds > 0 ? seconds : null);
}

// The JSON of an answer; a POST where there is a body.
export async function ask(path, body, signal) {
  const response = await asked(path, body, signal);
  try {
    return await response.json();
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Failure(SILENT);
  }
}

// The events of a stream, one after the other.
export async function* events(path, body, signal) {
  const response = await asked(path, { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      held += value;
      const parts = held.split("\n\n");
      held = parts.pop();
      for (const part of parts) {
        const data = part.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Failure(event.error.message);
        yield event;
      }
    }
  } catch (error) {
    if (isAbort(error) || error instanceof Failure) throw error;
    throw new Failure("The connection broke off before the answer was whole.");
  } finally {
    reader.cancel().catch(() => {}); // it may have been cut already
  }
}

export const pathOf = (name, behind = "") => `/v1/models/${encodeURIComponent(name)}${behind}`;
