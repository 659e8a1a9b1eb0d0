/**
 * One event as a device holds it: where it is, its stage maps, and what it has planned (at most one ack and one fetch). Pure.
 *
 * @typedef {import("./frames.js").State} State
 * @typedef {import("./frames.js").StageMap} StageMap
 * @typedef {import("./frames.js").Payload} Payload
 * @typedef {import("./frames.js").Position} Position
 * @typedef {import("./frames.js").Hint} Hint
 * @typedef {"switched" | "missing" | "ignored"} Result
 * @typedef {{ t: "ack", e: string, gen: number, seq: number, r: Result, ms: number }} Ack
 * @typedef {{ type: "Switched", state: State, result: Result, payload: Payload }} Switched
 * @typedef {{ type: "Filled", state: State, payload: Payload }} Filled
 */

import { uniform } from "./backoff.js";
import { ackHash } from "./hash.js";

/** Seconds to the next fetch at least, whatever `refresh_after` says. */
const REFRESH_MIN = 1;
const NOTHING_YET = { gen: 0, seq: 0 };
const GONE = "gone";

/**
 * Longer or shorter by up to a fifth: what was given out together must not end together.
 * @param {() => number} random
 * @param {number} seconds
 */
export const jittered = (random, seconds) => seconds * uniform(random, 1 - 0.2, 1 + 0.2);

/**
 * Which of two is newer: by (gen, seq), and by nothing else.
 * @param {{ gen: number, seq: number }} a
 * @param {{ gen: number, seq: number }} b
 */
const compare = (a, b) => a.gen - b.gen || a.seq - b.seq;

/** Moments are monotonic seconds, windows are ms as on the wire. */
export class Followed {
  /** The newest state taken. @type {State | null} */
  state = null;
  /** The node said `err`: it does not follow the event for us. */
  refused = false;
  /** When to ask for a refused event again. @type {number | null} */
  askAt = null;
  /** The planned fetch: its moment, and the least version it is for ("": whichever there is). @type {{ at: number, version: string } | null} */
  fetch = null;
  /** What the fetch under way is for; null: none is. @type {string | null} */
  inFlight = null;
  /** The pending ack and its moment. @type {{ at: number, ack: Ack } | null} */
  ack = null;
  #device;
  #random;
  /** @type {{ map: StageMap, until: number } | null} */
  #own = null;
  /** @type {{ map: StageMap, until: number } | null} */
  #cohort = null;
  #arrived = 0;
  #acked = NOTHING_YET;
  /** @type {{ gen: number, seq: number, wanted: string } | null} */
  #fetchedFor = null;
  /** @type {number | null} */
  #refreshAfter = null;

  /**
   * @param {string} event
   * @param {string} device
   * @param {() => number} random in [0, 1)
   */
  constructor(event, device, random) {
    this.event = event;
    this.#device = device;
    this.#random = random;
  }

  get #order() {
    return this.state ?? NOTHING_YET;
  }

  /** Of the own map: a cohort map does not count as held. @returns {string | null} */
  get version() {
    return this.#own && this.#own.map.map;
  }

  /** @returns {Position} */
  get position() {
    const { gen, seq } = this.#order;
    return { e: this.event, gen, seq, map: this.version };
  }

  /** The map in use: the own one, else the cohort's. @returns {StageMap | null} */
  get map() {
    return (this.#own ?? this.#cohort)?.map ?? null;
  }

  /** When `expire` has something to do, connected or not. @returns {number[]} */
  get moments() {
    const found = [this.#own, this.#cohort].flatMap((held) => (held ? [held.until] : []));
    return this.fetch && this.inFlight === null ? [...found, this.fetch.at] : found;
  }

  /**
   * What the current stage shows: own stage, own default, the cohort's, or missing. A null default is no default.
   * @returns {{ result: Result, payload: Payload }}
   */
  payload() {
    const stage = this.state?.stage ?? "";
    for (const held of [this.#own, this.#cohort]) {
      if (held && Object.hasOwn(held.map.stages, stage)) return { result: "switched", payload: held.map.stages[stage] };
      if (held && held.map.default !== null) return { result: "switched", payload: held.map.default };
    }
    return { result: "missing", payload: null };
  }

  /**
   * A state arrived. Applied only if greater by (gen, seq); apart from that, it may plan a fetch or an ack.
   * @param {State} state
   * @param {number} now
   * @returns {Switched | null}
   */
  take(state, now) {
    this.refused = false;
    this.askAt = null;
    const newer = compare(state, this.#order);
    if (newer < 0 || !compare(state, NOTHING_YET)) return null;
    let switched = null;
    if (newer) switched = this.#switch(state, now);
    else if (compare(this.#acked, state)) this.#planAck(state, "ignored", now);
    this.#lookForMap(state, now);
    return switched;
  }

  /**
   * What the device switched to is on the screen: says how long that took, if an ack is pending.
   * @param {number} now
   */
  applied(now) {
    if (this.ack) this.ack.ack.ms = Math.max(0, Math.round((now - this.#arrived) * 1000));
  }

  /**
   * A map was pushed or fetched. Dropped when of another gen, or not greater than what is held of its kind.
   * @param {StageMap} got
   * @param {number} now
   * @returns {Filled | null}
   */
  hold(got, now) {
    const before = got.cohort ? this.#cohort : this.#own;
    if ((this.state && got.gen !== this.state.gen) || (before && got.map <= before.map.map)) return null;
    const wasMissing = this.payload().result === "missing";
    const held = { map: got, until: now + jittered(this.#random, got.ttl) };
    if (got.cohort) this.#cohort = held;
    else {
      this.#own = held;
      if (this.fetch && got.map >= this.fetch.version) this.fetch = null;
    }
    const { result, payload } = this.payload();
    return this.state && wasMissing && result === "switched" ? { type: "Filled", state: this.state, payload } : null;
  }

  /**
   * A newer map exists: plans one fetch within the window, unless it is not newer than what is held or planned.
   * @param {Hint} hint
   * @param {number} now
   */
  hinted(hint, now) {
    const known = [this.version, this.fetch?.version, this.inFlight];
    if ((this.state && hint.gen !== this.state.gen) || known.some((version) => hint.map <= (version ?? ""))) return;
    this.#planFetch(hint.w, hint.map, now);
  }

  /**
   * Drops maps whose time is over. True when the planned fetch is due: it is now in flight.
   * @param {number} now
   */
  expire(now) {
    if (this.#cohort && this.#cohort.until <= now) this.#cohort = null;
    if (this.#own && this.#own.until <= now) {
      this.#own = this.#fetchedFor = null;
      if (this.state) this.#lookForMap(this.state, now);
    }
    if (!this.fetch || this.inFlight !== null || this.fetch.at > now) return false;
    this.inFlight = this.fetch.version;
    this.fetch = null;
    return true;
  }

  /**
   * The fetch ended with a map, or with "what you hold is current" (null). Plans the next one where the answer says so.
   * @param {StageMap | null} got
   * @param {number | null} refreshAfter
   * @param {number} now
   */
  fetched(got, refreshAfter, now) {
    const filled = got && this.hold(got, now);
    this.inFlight = null;
    if (got) this.#refreshAfter = refreshAfter;
    else if (this.#own) this.#own.until = now + jittered(this.#random, this.#own.map.ttl);
    if (this.#refreshAfter && !this.#over)
      this.#planAt(now + jittered(this.#random, Math.max(this.#refreshAfter, REFRESH_MIN)), "");
    return filled;
  }

  /** No second try now: the next state, hint or connect plans it again. */
  fetchFailed() {
    this.inFlight = this.#fetchedFor = null;
  }

  /** Acks belong to the connection that asked; a refused event is asked for again by the next `hello`. */
  disconnected() {
    this.ack = this.askAt = null;
    this.refused = false;
  }

  get #over() {
    return this.state?.stage === GONE;
  }

  /**
   * @param {State} state
   * @param {number} now
   * @returns {Switched}
   */
  #switch(state, now) {
    this.state = state;
    this.#arrived = now;
    this.ack = null;
    if (this.#own?.map.gen !== state.gen) this.#own = null;
    if (this.#cohort?.map.gen !== state.gen) this.#cohort = null;
    const { result, payload } = this.payload();
    this.#planAck(state, result, now);
    return { type: "Switched", state, result, payload };
  }

  /**
   * @param {State} state
   * @param {Result} r
   * @param {number} now
   */
  #planAck({ e, gen, seq, ack }, r, now) {
    if (!ack || ackHash(this.#device, gen, seq) >= ack.p) return;
    this.#acked = { gen, seq };
    this.ack = { at: now + uniform(this.#random, 0, ack.w) / 1000, ack: { t: "ack", e, gen, seq, r, ms: 0 } };
  }

  /**
   * Once per state: without a map, or with an older one than the state wants, one fetch within its window.
   * @param {State} state
   * @param {number} now
   */
  #lookForMap({ gen, seq, map, fetch }, now) {
    if (this.#over) {
      this.fetch = null; // nothing is left to show, and a deleted event must not send everyone to the API
      return;
    }
    const wanted = map ?? "";
    const last = this.#fetchedFor;
    if (this.version !== null && this.version >= wanted) return;
    if (last && !compare(last, { gen, seq }) && last.wanted === wanted) return;
    this.#fetchedFor = { gen, seq, wanted };
    this.#planFetch(fetch, wanted, now);
  }

  /**
   * @param {number} window
   * @param {string} version
   * @param {number} now
   */
  #planFetch(window, version, now) {
    this.#planAt(now + uniform(this.#random, 0, window) / 1000, version);
  }

  /**
   * At most one is planned: the sooner moment, the greater version.
   * @param {number} at
   * @param {string} version
   */
  #planAt(at, version) {
    const planned = this.fetch;
    this.fetch = planned
      ? { at: Math.min(at, planned.at), version: version > planned.version ? version : planned.version }
      : { at, version };
  }
}
