/**
 * The frames of `stagecast.v1` that a node sends, checked. Receivers ignore unknown fields; what fails a check is no frame of
 * this protocol.
 *
 * @typedef {unknown} Payload What a stage shows; any JSON, opaque to Stagecast.
 * @typedef {{ e: string, gen: number, seq: number, map: string | null }} Position Where a device is in an event.
 * @typedef {{ p: number, w: number }} AckPolicy Ack iff the hash is below `p`, within `w` ms.
 * @typedef {{ t: "state", e: string, gen: number, seq: number, stage: string, ts: number, map: string | null, fetch: number,
 *   ack: AckPolicy | null }} State An event's current state.
 * @typedef {{ t: "map", e: string, gen: number, map: string, stages: Record<string, Payload>, default: Payload, ttl: number,
 *   cohort: boolean }} StageMap What prefetch gives one member (or a cohort) for one event; `ttl` in seconds.
 * @typedef {StageMap & { refresh_after?: number | null }} PulledMap The same as the stage-map API answers it: and when to ask again, s.
 * @typedef {{ t: "welcome", sid: string, ping: number, back: [number, number], refresh: number | null,
 *   maps: string | null, state: State[] }} Welcome
 * @typedef {{ t: "hint", e: string, gen: number, map: string, w: number }} Hint
 * @typedef {{ t: "msg", id: string, kind: string, body?: unknown }} Msg
 * @typedef {{ t: "pong", c: number }} Pong
 * @typedef {{ t: "goaway", why: string, back?: [number, number] | null }} Goaway
 * @typedef {{ t: "err", code: string, e?: string | null, text?: string }} Err
 * @typedef {Welcome | State | PulledMap | Hint | Msg | Pong | Goaway | Err} NodeFrame
 *
 * @typedef {(value: any) => boolean} Check
 */

/** Event ids and stages. */
const NAME = /^[a-z0-9._-]{1,64}$/;
const VERSION = /^\d{13}-[A-Za-z0-9._-]{1,48}$/;

/** @type {Check} */
const text = (value) => typeof value === "string";
/** @type {Check} */
const count = (value) => Number.isSafeInteger(value) && value >= 0;
/** @type {(lo: number, hi: number) => Check} */
const within = (lo, hi) => (value) => typeof value === "number" && value >= lo && value <= hi;
/** @type {(pattern: RegExp) => Check} */
const like = (pattern) => (value) => text(value) && pattern.test(value);
/** Null, or left out. @type {(check: Check) => Check} */
const optional = (check) => (value) => value == null || check(value);
/** @type {Check} */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
/** @type {(fields: Record<string, Check>) => Check} */
const shape = (fields) => (value) => isObject(value) && Object.keys(fields).every((field) => fields[field](value[field]));

const name = like(NAME);
const version = like(VERSION);
const seconds = within(0, Number.MAX_SAFE_INTEGER);
/** @type {Check} */
const back = (value) => Array.isArray(value) && value.length === 2 && value.every(count);
const place = { e: name, gen: count };
const state = shape({
  ...place,
  seq: count,
  stage: name,
  ts: count,
  map: optional(version),
  fetch: count,
  ack: optional(shape({ p: within(1, 2 ** 32), w: count })),
});
const map = shape({
  ...place,
  map: version,
  stages: (stages) => isObject(stages) && Object.keys(stages).every(name),
  ttl: optional(seconds),
  cohort: optional((cohort) => typeof cohort === "boolean"),
  refresh_after: optional(seconds),
});

/** @type {Record<string, Check>} */
const FRAMES = {
  __proto__: /** @type {any} */ (null), // a type called "constructor" is unknown
  welcome: shape({
    sid: text,
    ping: within(0.01, 86400),
    back,
    refresh: optional(seconds),
    maps: optional(text),
    state: (states) => Array.isArray(states) && states.every(state),
  }),
  state,
  map,
  hint: shape({ ...place, map: version, w: count }),
  msg: shape({ id: text, kind: text }),
  pong: isObject,
  goaway: shape({ why: text, back: optional(back) }),
  err: shape({ code: text, e: optional(text), text: optional(text) }),
};

/**
 * A frame, or null for a type this version does not know, or undefined for what is none of this protocol.
 * @param {unknown} data a text message
 * @returns {NodeFrame | null | undefined}
 */
export function decodeFrame(data) {
  let frame;
  try {
    frame = JSON.parse(/** @type {string} */ (data));
  } catch {}
  if (!text(data) || !isObject(frame) || !text(frame.t)) return undefined;
  const check = FRAMES[frame.t];
  if (!check) return null;
  if (!check(frame)) return undefined;
  return frame.t === "map"
    ? { ...frame, default: frame.default ?? null, ttl: frame.ttl ?? 86400, cohort: frame.cohort ?? false }
    : frame;
}
