/**
 * The device's side of `stagecast.v1`, without a socket: frames and moments in, effects out.
 *
 * A `Session` lives as long as the device and sees many connections. A driver tells it what happened (`opened`, `receive`,
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
 * @typedef {import("./followed.js").Switched} Switched
 * @typedef {import("./followed.js").Filled} Filled
 *
 * @typedef {{ t: "hello", token: string, device: string, app: string, at: Position[] } | { t: "sub", at: Position[] }
 *   | { t: "unsub", e: string[] } | import("./followed.js").Ack | { t: "ping", c: number, at?: Position[] }
 *   | { t: "auth", token: string }} DeviceFrame
 *
 * @typedef {{ type: "Send", frame: DeviceFrame }} Send Send this frame on the open connection.
 * @typedef {{ type: "Welcomed", sid: string, back: [number, number] }} Welcomed The node took the token.
 * @typedef {{ type: "Leaving", why: string, back: [number, number] | null }} Leaving The node will close soon.
 * @typedef {{ type: "MapHeld", map: StageMap }} MapHeld Another stage map is in use.
 * @typedef {{ type: "FetchDue", event: string, url: string, etag: string | null }} FetchDue GET it, then call `fetched` or
 *   `fetchFailed`.
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
import { Followed, jittered } from "./followed.js";
import { decodeFrame, decodePulledMap } from "./frames.js";

/** Events that can be followed at once. */
const EVENTS_MAX = 8;
/** Seconds from a ping to its pong, from `hello` to `welcome`, and from `goaway` until the device closes by itself. */
const ANSWER_WITHIN = 10;
/** Seconds from applying something until the ping that tells the positions, at most (or the ping interval, if shorter). */
const CENSUS_WITHIN = 45;
/** Seconds between two renewals at least, whatever `refresh` says. */
const RENEW_EVERY_MIN = 10;
/** Seconds between two probes at least: a tab may be switched to and fro faster than a node likes pings. */
const PROBE_EVERY_MIN = 5;

export class Session {
  /** @type {Phase} */
  phase = "away";
  #device;
  #app;
  #random;
  /** @type {Map<string, Followed>} */
  #followed = new Map();
  /** What the node was told last of each event. @type {Map<string, string>} */
  #told = new Map();
  /** @type {string | null} */
  #maps = null;
  #ping = CENSUS_WITHIN;
  /** @type {number | null} */
  #refresh = null;
  /** @type {number | null} */
  #pingAt = null;
  #censusDrawn = false;
  /** Welcome, pong or close: by when the node owes us something. @type {number | null} */
  #answerBy = null;
  #pinged = -1;
  /** @type {number | null} */
  #tokenAt = null;

  /**
   * @param {string} device
   * @param {string[]} events
   * @param {() => number} random in [0, 1)
   * @param {string} app
   */
  constructor(device, events, random, app) {
    this.#device = device;
    this.#random = random;
    this.#app = app;
    for (const event of events) this.#add(event);
  }

  get events() {
    return [...this.#followed.keys()];
  }

  /**
   * All that is held of an event; undefined for one it does not follow.
   * @param {string} event
   */
  followed(event) {
    return this.#followed.get(event);
  }

  // -- what the driver tells

  /**
   * A connection is there: says hello, which also subscribes.
   * @param {string} token
   * @param {number} now
   * @returns {Effect[]}
   */
  opened(token, now) {
    this.phase = "greeting";
    this.#answerBy = now + ANSWER_WITHIN;
    const all = [...this.#followed.values()];
    this.#tell(all);
    const at = all.map((one) => one.position);
    return [{ type: "Send", frame: { t: "hello", token, device: this.#device, app: this.#app, at } }];
  }

  /**
   * A message arrived.
   * @param {unknown} data
   * @param {number} now
   * @returns {Effect[]}
   */
  receive(data, now) {
    if (this.phase === "away" || this.phase === "given up") return [];
    const frame = decodeFrame(data);
    if (frame === undefined) return [{ type: "Dropped" }];
    if (frame === null) return [];
    const { t } = frame;
    if ((t === "welcome") !== (this.phase === "greeting") && t !== "goaway")
      return this.#giveUp(`a ${t} while ${this.phase}`);
    if (t === "welcome") this.phase = "open";
    if (t === "goaway") this.phase = "leaving";
    const effects = this.#take(frame, now);
    this.#drawCensus(now);
    return effects;
  }

  /** The connection is gone, whoever ended it. Planned fetches and held maps stay. */
  closed() {
    this.phase = "away";
    this.#pingAt = this.#answerBy = this.#tokenAt = null;
    this.#censusDrawn = false;
    for (const one of this.#followed.values()) one.disconnected();
  }

  /**
   * Throws RangeError over 8 events.
   * @param {string} event
   * @returns {Effect[]}
   */
  follow(event) {
    if (this.#followed.has(event)) return [];
    const added = this.#add(event);
    return this.#speaks ? [this.#subscribe(added)] : [];
  }

  /**
   * Forgets all that is held of the event.
   * @param {string} event
   * @returns {Effect[]}
   */
  unfollow(event) {
    this.#told.delete(event);
    return this.#followed.delete(event) && this.#speaks ? [{ type: "Send", frame: { t: "unsub", e: [event] } }] : [];
  }

  /**
   * What `Switched` said is on the screen: the ack will say how long it took.
   * @param {string} event
   * @param {number} now
   */
  applied(event, now) {
    this.#followed.get(event)?.applied(now);
  }

  /**
   * The answer to TokenDue; tells the node, if the connection is still there.
   * @param {string} token
   * @param {number} now
   * @returns {Effect[]}
   */
  renewed(token, now) {
    if (this.phase !== "open") return [];
    if (this.#refresh !== null) this.#tokenAt = now + Math.max(this.#refresh, RENEW_EVERY_MIN);
    return [{ type: "Send", frame: { t: "auth", token } }];
  }

  /**
   * No token to be had: asked for again soon; there is grace after its end.
   * @param {number} now
   */
  renewalFailed(now) {
    if (this.phase === "open") this.#tokenAt = now + uniform(this.#random, 5, 15);
  }

  /**
   * The HTTP answer to FetchDue. Anything but 304 and a 200 that holds the event's map is a failure.
   * @param {string} event
   * @param {number} status
   * @param {string} body
   * @param {number} now
   * @returns {Effect[]}
   */
  fetched(event, status, body, now) {
    const one = this.#followed.get(event);
    if (!one) return [];
    const got = status === 200 ? decodePulledMap(body, event) : undefined;
    if (!got && status !== 304) {
      one.fetchFailed();
      return status === 200 ? [{ type: "Dropped" }] : [];
    }
    const before = one.map;
    const filled = one.fetched(got?.map ?? null, got?.refreshAfter ?? null, now);
    this.#drawCensus(now);
    return this.#mapEffects(one, before, filled);
  }

  /**
   * No HTTP answer to FetchDue.
   * @param {string} event
   */
  fetchFailed(event) {
    this.#followed.get(event)?.fetchFailed();
  }

  /**
   * A map that the device kept from an earlier life; it still has `map.ttl` seconds.
   * @param {StageMap} map
   * @param {number} now
   * @returns {Effect[]}
   */
  restored(map, now) {
    const one = this.#followed.get(map.e);
    const filled = one?.hold(map, now);
    this.#drawCensus(now);
    return filled ? [filled] : [];
  }

  /**
   * Something suggests that the connection may be dead (the network changed, the page was asleep): ask soon.
   * @param {number} now
   */
  probe(now) {
    if (this.#pingAt !== null && this.#answerBy === null && now - this.#pinged / 1000 >= PROBE_EVERY_MIN)
      this.#pingAt = Math.min(this.#pingAt, now + this.#random());
  }

  /** When to call `expire`, in seconds; null: not before something else happens. */
  deadline() {
    /** @type {(number | null)[]} */
    const moments = [this.#answerBy];
    const open = this.phase === "open";
    for (const one of this.#followed.values()) {
      moments.push(...one.moments);
      if (one.ack && (open || this.phase === "leaving")) moments.push(one.ack.at);
      if (open) moments.push(one.askAt);
    }
    if (open) moments.push(this.#tokenAt, this.#answerBy === null ? this.#pingAt : null);
    const known = moments.filter((moment) => moment !== null);
    return known.length ? Math.min(...known) : null;
  }

  /**
   * Does what is due. Call it at `deadline()`; earlier or later does no harm.
   * @param {number} now
   * @returns {Effect[]}
   */
  expire(now) {
    if (isDue(this.#answerBy, now)) return this.#giveUp(`no answer from the node while ${this.phase}`);
    const effects = [...this.#followed.values()].flatMap((one) => this.#expireEvent(one, now));
    this.#drawCensus(now);
    if (this.phase === "open") effects.push(...this.#expireConnection(now));
    return effects;
  }

  // -- inside

  get #speaks() {
    return this.phase === "greeting" || this.phase === "open";
  }

  /**
   * @param {string} why
   * @returns {Effect[]}
   */
  #giveUp(why) {
    this.phase = "given up";
    this.#answerBy = null;
    return [{ type: "GiveUp", why }];
  }

  /** @param {string} event */
  #add(event) {
    if (this.#followed.size >= EVENTS_MAX) throw new RangeError(`at most ${EVENTS_MAX} events can be followed`);
    const added = new Followed(event, this.#device, this.#random);
    this.#followed.set(event, added);
    return added;
  }

  /** @param {Followed[]} all */
  #tell(all) {
    this.#told = new Map(all.map((one) => [one.event, JSON.stringify(one.position)]));
  }

  /**
   * @param {Followed} one
   * @returns {Effect}
   */
  #subscribe(one) {
    this.#told.set(one.event, JSON.stringify(one.position));
    return { type: "Send", frame: { t: "sub", at: [one.position] } };
  }

  /**
   * @param {NodeFrame} frame
   * @param {number} now
   * @returns {Effect[]}
   */
  #take(frame, now) {
    switch (frame.t) {
      case "welcome":
        this.#answerBy = null;
        this.#maps = frame.maps;
        this.#ping = frame.ping;
        this.#refresh = frame.refresh;
        this.#pingAt = now + jittered(this.#random, frame.ping);
        this.#tokenAt = frame.refresh === null ? null : now + frame.refresh;
        return [
          { type: "Welcomed", sid: frame.sid, back: frame.back },
          ...frame.state.flatMap((state) => this.#state(state, now)),
        ];
      case "state":
        return this.#state(frame, now);
      case "map": {
        const one = this.#followed.get(frame.e);
        return one ? this.#mapEffects(one, one.map, one.hold(frame, now)) : [];
      }
      case "hint":
        this.#followed.get(frame.e)?.hinted(frame, now);
        return [];
      case "msg":
        return [{ type: "Message", id: frame.id, kind: frame.kind, body: frame.body }];
      case "pong":
        if (frame.c === this.#pinged && this.phase === "open") this.#answerBy = null;
        return [];
      case "goaway":
        this.#answerBy = now + ANSWER_WITHIN;
        return [{ type: "Leaving", why: frame.why, back: frame.back }];
      case "err": {
        const one = this.#followed.get(frame.e ?? "");
        if (one) {
          one.refused = true;
          one.askAt = now + uniform(this.#random, 30, 60);
        }
        return [{ type: "Refused", event: frame.e, code: frame.code, text: frame.text }];
      }
    }
  }

  /**
   * @param {State} state
   * @param {number} now
   * @returns {Effect[]}
   */
  #state(state, now) {
    const switched = this.#followed.get(state.e)?.take(state, now);
    return switched ? [switched] : [];
  }

  /**
   * @param {Followed} one
   * @param {StageMap | null} before
   * @param {Filled | null} filled evaluated after `before`
   * @returns {Effect[]}
   */
  #mapEffects(one, before, filled) {
    /** @type {Effect[]} */
    const effects = one.map && one.map !== before ? [{ type: "MapHeld", map: one.map }] : [];
    return filled ? [...effects, filled] : effects;
  }

  /** The events whose positions the node wants to hear, and whether it was told otherwise of any. */
  #positions() {
    const known = [...this.#followed.values()].filter((one) => !one.refused);
    return { known, changed: known.some((one) => this.#told.get(one.event) !== JSON.stringify(one.position)) };
  }

  /**
   * Something was applied: the next ping comes sooner. Drawn once until that ping, however much is applied.
   * @param {number} now
   */
  #drawCensus(now) {
    if (this.phase !== "open" || this.#censusDrawn || this.#pingAt === null || !this.#positions().changed) return;
    this.#censusDrawn = true;
    this.#pingAt = Math.min(this.#pingAt, now + uniform(this.#random, 0, Math.min(CENSUS_WITHIN, this.#ping)));
  }

  /**
   * @param {Followed} one
   * @param {number} now
   * @returns {Effect[]}
   */
  #expireEvent(one, now) {
    /** @type {Effect[]} */
    const effects = [];
    const open = this.phase === "open";
    if (one.ack && one.ack.at <= now && (open || this.phase === "leaving")) {
      effects.push({ type: "Send", frame: one.ack.ack });
      one.ack = null;
    }
    if (isDue(one.askAt, now) && open) {
      one.askAt = null;
      effects.push(this.#subscribe(one));
    }
    if (one.expire(now)) {
      if (this.#maps) {
        const url = `${this.#maps.replace(/\/+$/, "")}/v1/stage-maps/${one.event}`;
        effects.push({ type: "FetchDue", event: one.event, url, etag: one.version });
      } else one.fetchFailed();
    }
    return effects;
  }

  /**
   * @param {number} now
   * @returns {Effect[]}
   */
  #expireConnection(now) {
    /** @type {Effect[]} */
    const effects = [];
    if (isDue(this.#tokenAt, now)) {
      this.#tokenAt = null;
      effects.push({ type: "TokenDue" });
    }
    if (isDue(this.#pingAt, now) && this.#answerBy === null) effects.push({ type: "Send", frame: this.#nextPing(now) });
    return effects;
  }

  /**
   * @param {number} now
   * @returns {DeviceFrame}
   */
  #nextPing(now) {
    const { known, changed } = this.#positions();
    this.#tell(known);
    this.#censusDrawn = false;
    this.#pinged = Math.max(Math.round(now * 1000), this.#pinged + 1); // a clock that never says the same twice
    this.#answerBy = now + ANSWER_WITHIN;
    this.#pingAt = now + jittered(this.#random, this.#ping);
    const c = this.#pinged;
    return changed ? { t: "ping", c, at: known.map((one) => one.position) } : { t: "ping", c };
  }
}

/**
 * @param {number | null} moment
 * @param {number} now
 */
const isDue = (moment, now) => moment !== null && moment <= now;
