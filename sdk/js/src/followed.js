/**
 * One event as a device holds it: where it is, its stage maps, and what it has planned (at most one ack and one fetch). Pure.
 * Moments are monotonic seconds, Infinity for never; windows are ms as on the wire.
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
 * @typedef {{ map: StageMap | null, until: number }} Held
 * @typedef {ReturnType<typeof followed>} Followed
 */

import { uniform } from "./backoff.js";
import { ackHash } from "./hash.js";
import { REFRESH_MIN } from "./limits.js";

const NEVER = Infinity;
/** @type {Held} */
const NO_MAP = { map: null, until: NEVER };

/**
 * Which of two is newer: by (gen, seq), and by nothing else.
 * @param {{ gen: number, seq: number }} a
 * @param {{ gen: number, seq: number }} b
 */
const compare = (a, b) => a.gen - b.gen || a.seq - b.seq;

/**
 * Longer or shorter by up to a fifth: what was given out together must not end together.
 * @param {() => number} random
 * @param {number} seconds
 */
export const jittered = (random, seconds) => seconds * uniform(random, 1 - 0.2, 1 + 0.2);

/**
 * @param {string} event
 * @param {string} device
 * @param {() => number} random in [0, 1)
 */
export function followed(event, device, random) {
  /** The newest state taken. @type {State | null} */
  let state = null;
  let own = NO_MAP;
  let cohort = NO_MAP;
  let arrived = 0;
  /** What was acked last, and what a fetch was planned for last. */
  let acked = "";
  let fetchedFor = "";
  let refreshAfter = 0;
  /** The planned fetch: its moment, and the least version it is for ("": whichever there is). */
  let fetchAt = NEVER;
  let fetchVersion = "";
  /** What the fetch under way is for; null: none is. @type {string | null} */
  let inFlight = null;

  /** Of the own map: a cohort map does not count as held. */
  const version = () => own.map?.map ?? null;
  const order = () => state ?? { gen: 0, seq: 0 };

  const one = {
    event,
    /** The position that the node was told last, as JSON. */
    told: "",
    /** The node said `err`: it does not follow the event for us. */
    refused: false,
    /** When to ask for a refused event again. */
    askAt: NEVER,
    /** The pending ack and its moment. @type {Ack | null} */
    ack: null,
    ackAt: NEVER,
    version,
    state: () => state,

    /** @returns {Position} */
    position() {
      const { gen, seq } = order();
      return { e: event, gen, seq, map: version() };
    },

    /** The map in use: the own one, else the cohort's. */
    map: () => own.map ?? cohort.map,

    /** When `expire` has something to do, connected or not. */
    due: () => Math.min(own.until, cohort.until, inFlight === null ? fetchAt : NEVER),

    /**
     * What the current stage shows: own stage, own default, the cohort's, or missing. A null default is no default.
     * @returns {{ result: Result, payload: Payload }}
     */
    payload() {
      const stage = state?.stage ?? "";
      for (const { map } of [own, cohort]) {
        if (map && Object.hasOwn(map.stages, stage)) return { result: "switched", payload: map.stages[stage] };
        if (map && map.default !== null) return { result: "switched", payload: map.default };
      }
      return { result: "missing", payload: null };
    },

    /**
     * A state arrived. Applied only if greater by (gen, seq); apart from that, it may plan a fetch or an ack.
     * @param {State} got
     * @param {number} now
     * @returns {Switched | null}
     */
    take(got, now) {
      one.refused = false;
      one.askAt = NEVER;
      const newer = compare(got, order());
      if (newer < 0 || !(got.gen || got.seq)) return null;
      const switched = newer ? change(got, now) : null;
      if (!newer && acked !== key(got)) planAck(got, "ignored", now);
      lookForMap(got, now);
      return switched;
    },

    /**
     * What the device switched to is on the screen: says how long that took, if an ack is pending.
     * @param {number} now
     */
    applied(now) {
      if (one.ack) one.ack.ms = Math.max(0, Math.round((now - arrived) * 1000));
    },

    /**
     * A map was pushed or fetched. Dropped when of another gen, or not greater than what is held of its kind.
     * @param {import("./frames.js").PulledMap} pulled
     * @param {number} now
     * @returns {Filled | null}
     */
    hold({ refresh_after, ...map }, now) {
      const before = (map.cohort ? cohort : own).map;
      if ((state && map.gen !== state.gen) || (before && map.map <= before.map)) return null;
      const wasMissing = one.payload().result === "missing";
      const held = { map, until: now + jittered(random, map.ttl) };
      if (map.cohort) cohort = held;
      else {
        own = held;
        if (map.map >= fetchVersion) fetchAt = NEVER;
      }
      const { result, payload } = one.payload();
      return state && wasMissing && result === "switched" ? { type: "Filled", state, payload } : null;
    },

    /**
     * A newer map exists: plans one fetch within the window, unless it is not newer than what is held or planned.
     * @param {Hint} hint
     * @param {number} now
     */
    hinted({ gen, map, w }, now) {
      const planned = fetchAt < NEVER ? fetchVersion : "";
      if (state && gen !== state.gen) return;
      if ([version(), planned, inFlight].every((known) => map > (known ?? ""))) planFetch(w, map, now);
    },

    /**
     * Drops maps whose time is over. True when the planned fetch is due: it is now in flight.
     * @param {number} now
     */
    expire(now) {
      if (cohort.until <= now) cohort = NO_MAP;
      if (own.until <= now) {
        own = NO_MAP;
        fetchedFor = "";
        if (state) lookForMap(state, now);
      }
      if (inFlight !== null || fetchAt > now) return false;
      inFlight = fetchVersion;
      fetchAt = NEVER;
      return true;
    },

    /**
     * The fetch ended with a map, or with "what you hold is current" (null). Plans the next one where the answer says so.
     * @param {import("./frames.js").PulledMap | null} got
     * @param {number} now
     */
    fetched(got, now) {
      const filled = got && one.hold(got, now);
      inFlight = null;
      if (got) refreshAfter = got.refresh_after ?? 0;
      else if (own.map) own = { map: own.map, until: now + jittered(random, own.map.ttl) };
      if (refreshAfter && !isOver()) planAt(now + jittered(random, Math.max(refreshAfter, REFRESH_MIN)), "");
      return filled;
    },

    /** No second try now: the next state, hint or connect plans it again. */
    fetchFailed() {
      inFlight = null;
      fetchedFor = "";
    },

    /** Acks belong to the connection that asked; a refused event is asked for again by the next `hello`. */
    disconnected() {
      one.ackAt = one.askAt = NEVER;
      one.ack = null;
      one.refused = false;
    },
  };

  const isOver = () => state?.stage === "gone";

  /**
   * @param {State} got
   * @param {number} now
   * @returns {Switched}
   */
  function change(got, now) {
    state = got;
    arrived = now;
    one.ack = null;
    one.ackAt = NEVER;
    if (own.map?.gen !== got.gen) own = NO_MAP;
    if (cohort.map?.gen !== got.gen) cohort = NO_MAP;
    const { result, payload } = one.payload();
    planAck(got, result, now);
    return { type: "Switched", state: got, result, payload };
  }

  /**
   * @param {State} got
   * @param {Result} r
   * @param {number} now
   */
  function planAck(got, r, now) {
    const { e, gen, seq, ack } = got;
    if (!ack || ackHash(device, gen, seq) >= ack.p) return;
    acked = key(got);
    one.ackAt = now + uniform(random, 0, ack.w) / 1000;
    one.ack = { t: "ack", e, gen, seq, r, ms: 0 };
  }

  /**
   * Once per state: without a map, or with an older one than the state wants, one fetch within its window.
   * @param {State} got the state taken, or the same once more, which may want a newer map
   * @param {number} now
   */
  function lookForMap(got, now) {
    if (isOver()) {
      fetchAt = NEVER; // nothing is left to show, and a deleted event must not send everyone to the API
      return;
    }
    const wanted = got.map ?? "";
    const what = key(got) + wanted;
    if ((own.map && own.map.map >= wanted) || fetchedFor === what) return;
    fetchedFor = what;
    planFetch(got.fetch, wanted, now);
  }

  /**
   * @param {number} window
   * @param {string} wanted
   * @param {number} now
   */
  function planFetch(window, wanted, now) {
    planAt(now + uniform(random, 0, window) / 1000, wanted);
  }

  /**
   * At most one is planned: the sooner moment, the greater version.
   * @param {number} at
   * @param {string} wanted
   */
  function planAt(at, wanted) {
    if (fetchAt === NEVER || wanted > fetchVersion) fetchVersion = wanted;
    fetchAt = Math.min(at, fetchAt);
  }

  return one;
}

/** @param {{ gen: number, seq: number }} state */
const key = ({ gen, seq }) => `${gen}|${seq}|`;
