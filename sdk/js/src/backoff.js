/**
 * When a device comes back after a connection ended, and after how long. Pure: chance and stable time are arguments.
 *
 * The rules are those of the protocol's "Closing": the close code says what to do, the node's `back` says how fast, and n, the
 * exponent of the backoff, starts over only after 30 s of stable connection, so that a node which accepts and drops is not
 * hammered.
 */

import { DELAY_MAX, STABLE_AFTER, UNAUTHORIZED } from "./limits.js";

const STAY_AWAY = [1000, 1002, 1003, 1007, 1008, 1009, 4400, 4403, 4409];
const BY_PLAN = [1001, 4000, 4001];

/** @typedef {{ seconds: number, newToken: boolean }} Wait Connect again after `seconds`, with a new token if it says so. */

/**
 * A number in lo … hi.
 * @param {() => number} random in [0, 1)
 * @param {number} lo
 * @param {number} hi
 */
export const uniform = (random, lo, hi) => lo + (hi - lo) * random();

/**
 * One device's memory of how its connections ended.
 * @param {() => number} random in [0, 1)
 */
export function createReconnect(random) {
  /** The `back` in force, ms: this one before the first `welcome`. */
  let [low, high] = [2000, 5000];
  let failures = 0;
  let renewed = false;

  return {
    /** The `back` in force, ms. */
    back: () => [low, high],

    /**
     * A `welcome` or `goaway` said how to come back; ms. Bounds in the wrong order are put right.
     * @param {[number, number]} back
     */
    steer(back) {
      low = Math.min(...back);
      high = Math.max(...back);
    },

    /** A node took the token: the next 4401 is a first one. */
    welcomed() {
      renewed = false;
    },

    /**
     * What to do after a close with `code` (1006: no close frame, or no connection at all) of a connection that was welcomed
     * `stable` seconds ago (0: never). Null: stay away.
     * @param {number} code
     * @param {number} stable
     * @returns {Wait | null}
     */
    after(code, stable) {
      if (stable >= STABLE_AFTER) failures = 0;
      const newToken = code === UNAUTHORIZED;
      if (STAY_AWAY.includes(code) || (newToken && renewed)) return null;
      if (newToken) renewed = true;
      const byPlan = BY_PLAN.includes(code);
      let longest = high;
      if (!byPlan && !newToken) {
        if (failures) longest = Math.min(DELAY_MAX, high * 2 ** failures);
        failures = Math.min(failures + 1, 32);
      }
      return { seconds: uniform(random, byPlan ? low : 0, longest) / 1000, newToken };
    },
  };
}
