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
const AGAIN = 250;
const BACK_MAX = 3000;
/**
 * Streams of one browser, over all its windows. Over HTTP/1.1 it opens six connections to a server at most, and a stream keeps
 * one: with a seventh window nothing would be answered any more. The other windows ask.
 */
const STREAMS_MAX = 3;

export class Watch {
  #id;
  #hears;
  #over = new AbortController();
  /** Whether the broadcaster has streams. */
  #streams = true;
  #streaming = false;
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
    return this.connected && this.age < (this.#streaming ? SILENT : POLL + UNANSWERED);
  }

  async run() {
    let failures = 0;
    while (!this.#over.signal.aborted) {
      try {
        const streamed = this.#streams && (await withSlot(() => this.#stream()));
        if (streamed) this.heard = Date.now(); // it ended as it should, and is opened again
        else await this.#poll();
        failures = 0;
        await pause(streamed ? AGAIN : POLL);
      } catch (error) {
        if (error instanceof Problem && (error.status === 401 || error.status === 404)) {
          this.#hears.ended(error.status);
          return;
        }
        this.connected = false;
        failures += 1;
        await pause(Math.min(AGAIN * 2 ** failures, BACK_MAX));
      }
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

  /** Until the stream ends. False where the answer is plain JSON: from then on questions are asked. */
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
        return false;
      }
      this.#streaming = true;
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
      return true;
    } finally {
      this.#streaming = false;
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

/** What `work` in one of the browser's slots for streams comes to; false when all are taken. */
async function withSlot(work) {
  if (!navigator.locks) return work(); // there on https and localhost alone
  for (let slot = 0; slot < STREAMS_MAX; slot += 1) {
    const done = await navigator.locks.request(`stagecast-stream-${slot}`, { ifAvailable: true }, (lock) =>
      lock ? work() : null,
    );
    if (done !== null) return done;
  }
  return false;
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
