/**
 * The device's side of `stagecast.v1`, without a socket: frames and moments in, effects out.
 *
 * A session lives as long as the device and sees many connections. A driver tells it what happened (`opened`, `receive`,
 * `closed`, `fetched`, …), each time with `now` in monotonic seconds, does the effects that come back, in order, and calls
 * `expire` at `deadline()`. All chance is drawn from the `random` given. The phases:
 *
 *     phase      input                                  next
 *     ---------  -------------------------------------  ---------
 *     away       opened                                 greeting
 *     greeting   welcome                                open
 *     greeting   goaway                                 leaving
 *     open       state, map, hint, msg, pong, err       open
 *     open       goaway                                 leaving
 *     leaving    state, map, hint, msg, pong, err,      leaving
 *                goaway
 *     all but    closed                                 away
 *     away
 *
 * A frame that is not in the table is the node's error: the session gives the connection up. Frames that do not decode are
 * dropped, never answered by a reconnect: a node that sends one to everybody would else bring everybody back at once.
 *
 * @typedef {import("./frames.js").NodeFrame} NodeFrame
 * @typedef {import("./frames.js").Position} Position
 * @typedef {import("./frames.js").StageMap} StageMap
 * @typedef {import("./frames.js").State} State
 * @typedef {import("./frames.js").Payload} Payload
 * @typedef {import("./frames.js").Hint} Hint
 * @typedef {import("./followed.js").Result} Result
 * @typedef {import("./followed.js").Switched} Switched
 * @typedef {import("./followed.js").Filled} Filled
 * @typedef {import("./followed.js").Followed} Followed
 *
 * @typedef {{ t: "hello", token: string, device: string, app: string, at: Position[] } | { t: "sub", at: Position[] }
 *   | { t: "unsub", e: string[] } | import("./followed.js").Ack | { t: "ping", c: number, at?: Position[] }
 *   | { t: "auth", token: string }} DeviceFrame
 *
 * @typedef {{ type: "Send", frame: DeviceFrame }} Send Send this frame on the open connection.
 * @typedef {{ type: "Welcomed", sid: string, back: [number, number] }} Welcomed The node took the token.
 * @typedef {{ type: "Leaving", why: string, back: [number, number] | null }} Leaving The node will close soon.
 * @typedef {{ type: "MapHeld", map: StageMap }} MapHeld Another stage map is in use.
 * @typedef {{ type: "FetchDue", event: string, url: string, etag: string | null }} FetchDue GET it, then call `fetched`.
 * @typedef {{ type: "TokenDue" }} TokenDue Get a fresh token, then call `renewed` or `renewalFailed`.
 * @typedef {{ type: "Refused", event: string | null, code: string, text: string }} Refused The node answered `err`.
 * @typedef {{ type: "Message", id: string, kind: string, body: unknown }} Message Something for this device alone.
 * @typedef {{ type: "Dropped" }} Dropped A frame that is none of this protocol's.
 * @typedef {{ type: "GiveUp", why: string }} GiveUp Abort the connection, call `closed`, and back off.
 * @typedef {Send | Welcomed | Leaving | Switched | Filled | MapHeld | FetchDue | TokenDue | Refused | Message | Dropped
 *   | GiveUp} Effect
 *
 * @typedef {"away" | "greeting" | "open" | "leaving" | "given up"} Phase
 */

import { uniform } from "./backoff.js";
import { followed, jittered } from "./followed.js";
import { decodeFrame } from "./frames.js";
import {
  ANSWER_WITHIN,
  ASK_AGAIN_MAX,
  ASK_AGAIN_MIN,
  CENSUS_WITHIN,
  EVENTS_MAX,
  PROBE_EVERY_MIN,
  RENEW_AGAIN_MAX,
  RENEW_AGAIN_MIN,
  RENEW_EVERY_MIN,
} from "./limits.js";

const NEVER = Infinity;

/**
 * @param {string} device
 * @param {string[]} events
 * @param {() => number} random in [0, 1)
 * @param {string} app
 */
export function createSession(device, events, random, app) {
  /** @type {Phase} */
  let phase = "away";
  /** @type {Map<string, Followed>} */
  const all = new Map();
  /** @type {string | null} */
  let maps = null;
  let ping = CENSUS_WITHIN;
  /** @type {number | null} */
  let refresh = null;
  let censusDrawn = false;
  let pinged = -1;
  let pingAt = NEVER;
  let tokenAt = NEVER;
  /** Welcome, pong or close: by when the node owes us something. */
  let answerBy = NEVER;

  const isOpen = () => phase === "open";
  const speaks = () => isOpen() || phase === "greeting";
  /** @type {(frame: DeviceFrame) => Send} */
  const send = (frame) => ({ type: "Send", frame });
  /** @type {(one: Followed) => string} */
  const place = (one) => JSON.stringify(one.position());

  /** @param {string} event */
  function add(event) {
    if (all.size >= EVENTS_MAX) throw new RangeError(`more than ${EVENTS_MAX} events`);
    const one = followed(event, device, random);
    all.set(event, one);
    return one;
  }

  /**
   * What belongs to a connection goes; planned fetches and held maps stay.
   * @param {Phase} next
   */
  function leave(next) {
    phase = next;
    pingAt = answerBy = tokenAt = NEVER;
    censusDrawn = false;
    for (const one of all.values()) one.disconnected();
  }

  /**
   * @param {string} why
   * @returns {Effect[]}
   */
  function giveUp(why) {
    leave("given up");
    return [{ type: "GiveUp", why }];
  }

  /** @param {Followed} one */
  function subscribe(one) {
    one.told = place(one);
    return send({ t: "sub", at: [one.position()] });
  }

  /** The events whose positions the node wants to hear. */
  const known = () => [...all.values()].filter((one) => !one.refused);
  const changed = () => known().some((one) => one.told !== place(one));

  /** @returns {Position[]} */
  function tell() {
    for (const one of all.values()) one.told = one.refused ? "" : place(one);
    return known().map((one) => one.position());
  }

  /**
   * Something was applied: the next ping comes sooner. Drawn once until that ping, however much is applied.
   * @param {number} now
   */
  function drawCensus(now) {
    if (!isOpen() || censusDrawn || !changed()) return;
    censusDrawn = true;
    pingAt = Math.min(pingAt, now + uniform(random, 0, Math.min(CENSUS_WITHIN, ping)));
  }

  /**
   * @param {NodeFrame} frame
   * @param {number} now
   * @returns {Effect[]}
   */
  function take(frame, now) {
    const one = all.get(/** @type {{ e?: string }} */ (frame).e ?? "");
    switch (frame.t) {
      case "welcome":
        answerBy = NEVER;
        ({ maps, ping, refresh } = frame);
        pingAt = now + jittered(random, ping);
        tokenAt = now + (refresh ?? NEVER);
        return [
          { type: "Welcomed", sid: frame.sid, back: frame.back },
          ...frame.state.flatMap((state) => take({ ...state, t: "state" }, now)),
        ];
      case "state":
        return some(one?.take(frame, now));
      case "map":
        return restored(frame, now);
      case "hint":
        one?.hinted(frame, now);
        return [];
      case "msg":
        return [{ type: "Message", id: frame.id, kind: frame.kind, body: frame.body ?? null }];
      case "pong":
        if (frame.c === pinged && isOpen()) answerBy = NEVER;
        return [];
      case "goaway":
        answerBy = now + ANSWER_WITHIN;
        return [{ type: "Leaving", why: frame.why, back: frame.back ?? null }];
      case "err":
        if (one) {
          one.refused = true;
          one.askAt = now + uniform(random, ASK_AGAIN_MIN, ASK_AGAIN_MAX);
        }
        return [{ type: "Refused", event: frame.e ?? null, code: frame.code, text: frame.text ?? "" }];
    }
  }

  /**
   * A map was pushed, or the device kept it from an earlier life (then it still has `ttl` seconds).
   * @param {StageMap} map
   * @param {number} now
   * @returns {Effect[]}
   */
  function restored(map, now) {
    const one = all.get(map.e);
    return one ? held(one, () => one.hold(map, now)) : [];
  }

  /**
   * What comes of holding another map.
   * @param {Followed} one
   * @param {() => Filled | null} hold
   * @returns {Effect[]}
   */
  function held(one, hold) {
    const before = one.map();
    const filled = hold();
    const map = one.map();
    return some(map !== before && map && { type: "MapHeld", map }, filled);
  }

  /**
   * @param {Followed} one
   * @param {number} now
   * @returns {Effect[]}
   */
  function expireEvent(one, now) {
    /** @type {Effect[]} */
    const effects = [];
    if (one.ack && one.ackAt <= now) {
      effects.push(send(one.ack));
      one.ack = null;
      one.ackAt = NEVER;
    }
    if (one.askAt <= now && isOpen()) {
      one.askAt = NEVER;
      effects.push(subscribe(one));
    }
    if (one.expire(now)) {
      const url = `${maps?.replace(/\/+$/, "")}/v1/stage-maps/${one.event}`;
      if (maps) effects.push({ type: "FetchDue", event: one.event, url, etag: one.version() });
      else one.fetchFailed();
    }
    return effects;
  }

  /**
   * @param {number} now
   * @returns {DeviceFrame}
   */
  function nextPing(now) {
    const moved = changed();
    const at = tell();
    censusDrawn = false;
    pinged = Math.max(Math.round(now * 1000), pinged + 1); // a clock that never says the same twice
    answerBy = now + ANSWER_WITHIN;
    pingAt = now + jittered(random, ping);
    return { t: "ping", c: pinged, ...(moved && { at }) };
  }

  events.forEach(add);

  return {
    /** The events that are followed. */
    events: () => [...all.keys()],

    /**
     * All that is held of an event; undefined for one it does not follow.
     * @param {string} event
     */
    followed: (event) => all.get(event),

    /**
     * A connection is there: says hello, which also subscribes.
     * @param {string} token
     * @param {number} now
     * @returns {Effect[]}
     */
    opened(token, now) {
      phase = "greeting";
      answerBy = now + ANSWER_WITHIN;
      return [send({ t: "hello", token, device, app, at: tell() })];
    },

    /**
     * A message arrived.
     * @param {unknown} data
     * @param {number} now
     * @returns {Effect[]}
     */
    receive(data, now) {
      if (phase === "away" || phase === "given up") return [];
      const frame = decodeFrame(data);
      if (!frame) return frame === null ? [] : [{ type: "Dropped" }];
      const { t } = frame;
      if (t === "goaway") phase = "leaving";
      else if ((t === "welcome") !== (phase === "greeting")) return giveUp(`a ${t} while ${phase}`);
      if (t === "welcome") phase = "open";
      const effects = take(frame, now);
      drawCensus(now);
      return effects;
    },

    /** The connection is gone, whoever ended it. */
    closed: () => leave("away"),

    /**
     * Throws RangeError over 8 events.
     * @param {string} event
     * @returns {Effect[]}
     */
    follow(event) {
      if (all.has(event)) return [];
      const one = add(event);
      return speaks() ? [subscribe(one)] : [];
    },

    /**
     * Forgets all that is held of the event.
     * @param {string} event
     * @returns {Effect[]}
     */
    unfollow(event) {
      return all.delete(event) && speaks() ? [send({ t: "unsub", e: [event] })] : [];
    },

    /**
     * The answer to TokenDue; tells the node, if the connection is still there.
     * @param {string} token
     * @param {number} now
     * @returns {Effect[]}
     */
    renewed(token, now) {
      if (!isOpen()) return [];
      if (refresh !== null) tokenAt = now + Math.max(refresh, RENEW_EVERY_MIN);
      return [send({ t: "auth", token })];
    },

    /**
     * No token to be had: asked for again soon; there is grace after its end.
     * @param {number} now
     */
    renewalFailed(now) {
      if (isOpen()) tokenAt = now + uniform(random, RENEW_AGAIN_MIN, RENEW_AGAIN_MAX);
    },

    /**
     * The HTTP answer to FetchDue, or status 0 for none. Anything but 304 and a 200 that holds the event's map is a failure.
     * @param {string} event
     * @param {number} status
     * @param {string} body
     * @param {number} now
     * @returns {Effect[]}
     */
    fetched(event, status, body, now) {
      const one = all.get(event);
      if (!one) return [];
      const got = status === 200 ? decodeFrame(body) : null;
      const map = got?.t === "map" && got.e === event ? got : null;
      if (!map && status !== 304) {
        one.fetchFailed();
        return status === 200 ? [{ type: "Dropped" }] : [];
      }
      const effects = held(one, () => one.fetched(map, now));
      drawCensus(now);
      return effects;
    },

    restored,

    /**
     * Something suggests that the connection may be dead (the network changed, the page was asleep): ask soon.
     * @param {number} now
     */
    probe(now) {
      if (isOpen() && now - pinged / 1000 >= PROBE_EVERY_MIN) pingAt = Math.min(pingAt, now + random());
    },

    /** When to call `expire`, in seconds; Infinity: not before something else happens. */
    deadline() {
      const moments = [...all.values()].flatMap((one) => [one.due(), one.ackAt, isOpen() ? one.askAt : NEVER]);
      return Math.min(answerBy, ...moments, ...(isOpen() ? [tokenAt, answerBy < NEVER ? NEVER : pingAt] : []));
    },

    /**
     * Does what is due. Call it at `deadline()`; earlier or later does no harm.
     * @param {number} now
     * @returns {Effect[]}
     */
    expire(now) {
      if (answerBy <= now) return giveUp(`no answer while ${phase}`);
      const effects = [...all.values()].flatMap((one) => expireEvent(one, now));
      drawCensus(now);
      if (!isOpen()) return effects;
      if (tokenAt <= now) {
        tokenAt = NEVER;
        effects.push({ type: "TokenDue" });
      }
      if (pingAt <= now && answerBy === NEVER) effects.push(send(nextPing(now)));
      return effects;
    },
  };
}

/**
 * Those that are there.
 * @param {(Effect | null | undefined | false)[]} effects
 * @returns {Effect[]}
 */
const some = (...effects) => effects.filter((effect) => !!effect);
