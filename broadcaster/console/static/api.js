/** The broadcaster's API over fetch, with the session's cookie. */

/** Milliseconds for which an unanswered request is sent again, always under its one Idempotency-Key. */
const PATIENCE = 12_000;

/** An answer that is an error: RFC 9457 problem details in `body`. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `status ${status}`);
    this.status = status;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

/** No answer: the network, or a broadcaster that is away. */
export class Unreachable extends Error {}

/** The answer's JSON. Raises Problem, Unreachable; AbortError when `signal` said so. */
export async function call(method, path, body, { key, signal = AbortSignal.timeout(5000) } = {}) {
  const got = await answer(method, path, body, { key, signal });
  return got.status === 204 ? null : got.json();
}

/** The answer itself, of a good status. */
export async function answer(method, path, body, { key, signal, accept = "application/json" } = {}) {
  const headers = { Accept: accept, "X-Stagecast": "1" };
  if (key) headers["Idempotency-Key"] = key;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let got;
  try {
    got = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal?.aborted && signal.reason?.name !== "TimeoutError") throw error;
    throw new Unreachable("the broadcaster does not answer");
  }
  if (got.ok) return got;
  const told = await got.json().catch(() => ({}));
  throw new Problem(got.status, told, Number(got.headers.get("Retry-After")) || null);
}

/**
 * Sends until there is an answer that counts. A lost answer, a 503, and "too soon after the last one" are sent again; the key
 * makes it happen once, and `if_seq` in the body keeps it from happening to another head. `waiting` is told why it lasts.
 */
export async function insist(method, path, body, waiting) {
  const key = crypto.randomUUID ? crypto.randomUUID() : randomKey();
  const until = Date.now() + PATIENCE;
  for (;;) {
    try {
      return await call(method, path, body, { key });
    } catch (error) {
      const again = error instanceof Unreachable || error.status === 503 || (error.status === 409 && error.retryAfter);
      if (!again || Date.now() > until) throw error;
      waiting(
        error.status === 409
          ? "less than a second after the last one: waiting a moment"
          : `${error.message}: trying again`,
      );
      await pause(error.status === 409 ? 1000 * error.retryAfter : 500);
    }
  }
}

export function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function randomKey() {
  // randomUUID is there on https and localhost alone
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The path of an event's part. */
export function eventPath(id, part = "") {
  return `/v1/events/${encodeURIComponent(id)}${part}`;
}

/** What this broadcaster can do: "POST /v1/events/{id}/shift", … by its own description. */
export async function abilities() {
  const { paths } = await call("GET", "/openapi.json");
  return new Set(
    Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    ),
  );
}

/** All of an event's history after `seq`, oldest first. */
export async function history(id, seq) {
  const found = [];
  for (let after = seq; after !== null;) {
    const page = await call("GET", eventPath(id, `/history?after=${after}`));
    found.push(...page.history);
    after = page.after;
  }
  return found;
}
