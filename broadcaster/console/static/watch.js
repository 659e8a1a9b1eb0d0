/**
 * Watching one event: server-sent events where the broadcaster has them, a question a second where it has not. It comes back by
 * itself, for as long as the page is open, and always knows how old what it last heard is.
 */

import { answer, call, eventPath, pause, Problem } from "./api.js";

const POLL = 1000;
/** A stream says something every 10 s at least. */
const SILENT = 15_000;
/** An answer is waited for so long. */
const UNANSWERED = 4000;
const BACK_MAX = 3000;

export class Watch {
  #id;
  #hears;
  #over = new AbortController();
  #streams = true;
  /** Local ms of the last sign of life; 0 before the first. */
  heard = 0;
  connected = false;

  /** `hears`: {data(event, progress), ended(status)}: 401 when the session is over, 404 when there is no such event. */
  constructor(id, hears) {
    this.#id = id;
    this.#hears = hears;
  }

  stop() {
    this.#over.abort();
  }

  /** Ms since the last sign of life. */
  get age() {
    return this.heard ? Date.now() - this.heard : 0;
  }

  /** Whether what is shown is how it is. */
  get fresh() {
    return this.connected && this.age < (this.#streams ? SILENT : POLL + UNANSWERED);
  }

  async run() {
    for (let failures = 0; !this.#over.signal.aborted;) {
      try {
        await (this.#streams ? this.#stream() : this.#poll());
        failures = 0;
      } catch (error) {
        if (error instanceof Problem && (error.status === 401 || error.status === 404)) {
          this.#hears.ended(error.status);
          return;
        }
        failures += 1;
      }
      if (this.#streams || failures) this.connected = false;
      await pause(failures ? Math.min(250 * 2 ** failures, BACK_MAX) : this.#streams ? 250 : POLL);
    }
  }

  async #poll() {
    const signal = AbortSignal.any([this.#over.signal, AbortSignal.timeout(UNANSWERED)]);
    const [event, progress] = await Promise.all([
      call("GET", eventPath(this.#id), undefined, { signal }),
      call("GET", eventPath(this.#id, "/progress"), undefined, { signal }),
    ]);
    this.#tell(event, progress);
  }

  /** Until the stream ends. Where the answer is plain JSON, questions are asked from then on. */
  async #stream() {
    const silence = new AbortController();
    const signal = AbortSignal.any([this.#over.signal, silence.signal]);
    let timer = setTimeout(() => silence.abort(), UNANSWERED);
    try {
      const got = await answer("GET", eventPath(this.#id, "/progress"), undefined, {
        signal,
        accept: "text/event-stream",
      });
      if (!got.headers.get("Content-Type")?.startsWith("text/event-stream")) {
        this.#streams = false;
        await this.#poll();
        return;
      }
      for await (const told of messages(got.body, () => {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENT);
        this.heard = Date.now();
      })) {
        if (told.event === "progress") {
          const progress = JSON.parse(told.data);
          this.#tell(progress.head, progress);
        }
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #tell(event, progress) {
    if (this.#over.signal.aborted) return;
    this.heard = Date.now();
    this.connected = true;
    this.#hears.data(event, progress);
  }
}

/** The messages of a body of server-sent events; `alive` is called for every chunk, comments included. */
export async function* messages(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      alive();
      const blocks = (left + value).split(/\r?\n\r?\n/);
      left = blocks.pop();
      yield* blocks.map(message).filter((told) => told.data !== "");
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function message(block) {
  const told = { event: "message", data: [] };
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "event") told.event = value;
    if (field === "data") told.data.push(value);
  }
  return { event: told.event, data: told.data.join("\n") };
}
