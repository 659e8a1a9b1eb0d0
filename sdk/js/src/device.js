/**
 * The device SDK for browsers: a device that connects, follows events and switches its stages.
 *
 *     const device = createDevice("wss://live.example/ws", { device: "web", events: ["final"], token: freshToken });
 *     device.on("stage", ({ stage, payload }) => show(stage, payload));
 *     device.connect();
 *
 * What it decides is `session.js` (the protocol) and `backoff.js` (coming back); this module only moves bytes.
 *
 * @typedef {import("./frames.js").Payload} Payload
 * @typedef {import("./frames.js").StageMap} StageMap
 * @typedef {import("./frames.js").State} State
 * @typedef {import("./session.js").Effect} Effect
 * @typedef {ReturnType<typeof setTimeout> | undefined} Timer
 * @typedef {ReturnType<typeof createDevice>} Device
 *
 * @typedef {string | ((device: string) => string | Promise<string>)} TokenSource A device token, or where to get a fresh one
 *   for the device of this name: asked before the first connection, when the node says that it is due, and once after it was
 *   refused.
 *
 * @typedef {object} Options
 * @property {string} device the name of this browser or app; each tab adds `tab` to it
 * @property {string[]} events what to follow, at most 8
 * @property {TokenSource} token
 * @property {string} [app] name and version of the application, for the producer's eyes
 * @property {string} [tab] a tab's own suffix: `.` and random letters, unless told otherwise ("" for a page that is alone)
 * @property {import("./cache.js").MapCache} [cache] keeps stage maps over reloads; without it they live as long as the page
 * @property {typeof WebSocket} [WebSocket]
 * @property {typeof fetch} [fetch]
 * @property {() => number} [random] in [0, 1)
 * @property {Page} [page] where `online`, `visibilitychange` and the like happen
 *
 * @typedef {{ addEventListener?: EventTarget["addEventListener"], removeEventListener?: EventTarget["removeEventListener"],
 *   navigator?: { onLine?: boolean } }} Page
 *
 * @typedef {object} Change One switch.
 * @property {string} event
 * @property {number} gen
 * @property {number} seq
 * @property {string} stage
 * @property {number} ts ms since 1970 by the producer's clock; never order by it
 * @property {"switched" | "missing" | "ignored"} result `missing`: there is no payload for the stage yet
 * @property {Payload} payload what the stage shows, or null
 * @property {boolean} caughtUp it came with the welcome, and not as it happened
 * @property {boolean} late the switch was before, its missing payload has come now
 *
 * @typedef {object} Events
 * @property {Change} stage
 * @property {StageMap} map another stage map is in use
 * @property {{ session: string }} connected a node welcomed the device
 * @property {{ code: number, why: string, seconds: number }} disconnected it comes back in so many seconds
 * @property {{ code: number, why: string }} ended it does not come back by itself; `connect()` tries again
 * @property {{ event: string | null, code: string, text: string }} refused an event is not followed; it is asked for again
 * @property {{ id: string, kind: string, body: unknown }} message something for this device alone
 */

import { createReconnect, uniform } from "./backoff.js";
import { ABNORMAL, FETCH_WITHIN, OFFLINE_MAX, OPEN_WITHIN, TIMER_MAX, TOKEN_WITHIN } from "./limits.js";
import { createSession } from "./session.js";

const WAKES = ["online", "offline", "visibilitychange"];

/** Monotonic seconds: the wall clock of a device may say anything, and jump. */
const now = () => performance.now() / 1000;

/**
 * A device; `connect()` starts it. Throws RangeError for more than 8 events. A name that the protocol does not take is refused by
 * the node: `ended` with 4400.
 * @param {string} url ws:// or wss://
 * @param {Options} options
 */
export function createDevice(
  url,
  {
    device,
    events,
    token: source,
    app = "",
    cache,
    WebSocket = globalThis.WebSocket,
    fetch = globalThis.fetch,
    random = Math.random,
    tab = "." + random().toString(36).slice(2, 10),
    page = globalThis,
  },
) {
  const id = device + tab;
  const session = createSession(id, events, random, app);
  const reconnect = createReconnect(random);
  /** @type {Record<string, Set<(detail: any) => unknown>>} */
  const listeners = {};
  /** @type {string | null} */
  let token = null;
  /** Differs whenever the device was started, stopped or lost its connection: what began before is out of date. */
  let run = 0;
  let running = false;
  /** @type {WebSocket | null} */
  let socket = null;
  /** When a node took the token, on the connection that is open now; 0: it did not. */
  let welcomedAt = 0;
  /** The browser says that it is offline, and nothing is tried. */
  let held = false;
  /** The session's deadline. @type {Timer} */
  let timer;
  /** Until the next connection, or until it is given up. @type {Timer} */
  let wait;

  // -- one connection after the other

  /**
   * @param {number} seconds
   * @param {boolean} [anyway] even if the browser says that it is offline
   */
  function later(seconds, anyway = false) {
    clearTimeout(wait);
    wait = setTimeout(() => {
      held = !anyway && page.navigator?.onLine === false;
      if (held) later(OFFLINE_MAX, true);
      else void dial(run);
    }, seconds * 1000);
  }

  /** @param {number} mine */
  async function dial(mine) {
    const isCurrent = () => run === mine; // the close of a socket that was replaced says nothing about its successor
    try {
      token ??= await freshToken();
      if (!isCurrent()) return;
      socket = new WebSocket(url, "stagecast.v1");
    } catch (error) {
      if (isCurrent()) ended(ABNORMAL, `${error}`);
      return;
    }
    wait = setTimeout(() => ended(ABNORMAL, "unreachable"), OPEN_WITHIN * 1000);
    socket.onopen = () => {
      if (!isCurrent()) return;
      clearTimeout(wait);
      perform(session.opened(/** @type {string} */ (token), now()));
    };
    socket.onmessage = ({ data }) => isCurrent() && perform(session.receive(data, now()));
    socket.onclose = ({ code, reason }) => isCurrent() && ended(code, reason);
    socket.onerror = () => {}; // its close follows
  }

  /** Leaves the connection, whatever has become of it. */
  function disconnect() {
    run++;
    clearTimeout(wait);
    held = false;
    session.closed();
    socket?.close(1000);
    socket = null;
    welcomedAt = 0;
  }

  /**
   * @param {number} code
   * @param {string} why
   */
  function ended(code, why) {
    const next = reconnect.after(code, welcomedAt && now() - welcomedAt);
    disconnect();
    if (next?.newToken) token = null;
    if (!next || (next.newToken && typeof source === "string")) {
      self.close();
      emit("ended", { code, why });
    } else {
      later(next.seconds);
      arm();
      emit("disconnected", { code, why, seconds: next.seconds });
    }
  }

  /** The network changed, or the page was asleep: who was cut off then comes back spread out, not with everybody else. */
  function wake() {
    if (held && page.navigator?.onLine) {
      held = false;
      later(uniform(random, 0, reconnect.back()[1]) / 1000);
    }
    session.probe(now());
    arm();
  }

  /** @param {"addEventListener" | "removeEventListener"} how */
  function listen(how) {
    for (const name of WAKES) page[how]?.(name, wake);
  }

  // -- effects

  /** @param {Effect[]} effects */
  function perform(effects) {
    const caughtUp = effects[0]?.type === "Welcomed";
    for (const effect of effects) performOne(effect, caughtUp);
    arm();
  }

  /**
   * @param {Effect} effect
   * @param {boolean} caughtUp
   */
  function performOne(effect, caughtUp) {
    switch (effect.type) {
      case "Send":
        socket?.send(JSON.stringify(effect.frame));
        break;
      case "Welcomed":
        reconnect.welcomed();
        reconnect.steer(effect.back);
        welcomedAt = now();
        emit("connected", { session: effect.sid });
        break;
      case "Leaving":
        if (effect.back) reconnect.steer(effect.back);
        break;
      case "Switched":
        void switched(effect.state, { result: effect.result, payload: effect.payload, caughtUp, late: false });
        break;
      case "Filled":
        void switched(effect.state, { result: "switched", payload: effect.payload, caughtUp, late: true });
        break;
      case "MapHeld":
        if (!effect.map.cohort) void cache?.save(effect.map);
        emit("map", effect.map);
        break;
      case "FetchDue":
        void pull(effect);
        break;
      case "TokenDue":
        if (typeof source !== "string") void renew(run);
        break;
      case "Refused":
        emit("refused", effect);
        break;
      case "Message":
        emit("message", effect);
        break;
      case "Dropped":
        self.dropped++;
        break;
      case "GiveUp":
        ended(ABNORMAL, effect.why);
    }
  }

  /**
   * @param {State} state
   * @param {Pick<Change, "result" | "payload" | "caughtUp" | "late">} how
   */
  async function switched(state, how) {
    const { e: event, gen, seq, stage, ts } = state;
    if (stage === "gone") void cache?.drop(event);
    await emit("stage", { event, gen, seq, stage, ts, ...how });
    const one = session.followed(event);
    if (one?.state() === state) one.applied(now());
  }

  /**
   * @template {keyof Events} K
   * @param {K} name
   * @param {Events[K]} detail
   */
  function emit(name, detail) {
    const calls = [...(listeners[name] ?? [])].map(async (listener) => listener(detail));
    // One listener's error is no reason to keep anything from the others, or to lose the connection.
    return Promise.all(calls.map((call) => call.catch(console.error)));
  }

  /** @returns {Promise<string>} */
  async function freshToken() {
    if (typeof source === "string") return source;
    const late = new Promise((_, reject) => setTimeout(reject, TOKEN_WITHIN * 1000, "no token"));
    return /** @type {string} */ (await Promise.race([source(id), late]));
  }

  /** @param {number} mine */
  async function renew(mine) {
    try {
      token = await freshToken();
      if (run === mine) perform(session.renewed(token, now()));
    } catch {
      session.renewalFailed(now());
      arm();
    }
  }

  /** @param {import("./session.js").FetchDue} due */
  async function pull({ event, url, etag }) {
    self.fetches++;
    let status = 0;
    let body = "";
    try {
      const got = await fetch(url, {
        headers: { Authorization: `Bearer ${token}`, ...(etag && { "If-None-Match": `"${etag}"` }) },
        cache: "no-store", // the device is the cache
        signal: AbortSignal.timeout(FETCH_WITHIN * 1000),
      });
      body = await got.text();
      status = got.status;
    } catch {} // no answer: the next state, hint or connect asks again
    perform(session.fetched(event, status, body, now()));
  }

  /** @param {string} event */
  async function restore(event) {
    const map = await cache?.load(event);
    if (map) perform(session.restored(map, now()));
  }

  /** The one timer for all that the session plans. */
  function arm() {
    clearTimeout(timer);
    const deadline = session.deadline();
    if (running && deadline < Infinity)
      timer = setTimeout(
        () => perform(session.expire(now())),
        Math.min(Math.max(0, Math.ceil((deadline - now()) * 1000)), TIMER_MAX),
      );
  }

  const self = {
    /** The device's name on the wire, the tab's suffix included. */
    id,

    /** Whether a node has welcomed the device on the connection that is open now. */
    get connected() {
      return welcomedAt > 0;
    },

    /** Stage maps asked for by HTTP. */
    fetches: 0,

    /** Frames from the node that were none of the protocol's. */
    dropped: 0,

    /** The events it follows. */
    events: session.events,

    /** The newest state it took. @param {string} event */
    state: (event) => session.followed(event)?.state(),

    /** The stage map in use, its own or its cohort's. @param {string} event */
    stageMap: (event) => session.followed(event)?.map(),

    /** What the event's current stage shows now, or null. @param {string} event */
    showing: (event) => session.followed(event)?.payload().payload,

    /**
     * Calls `listener` each time. For `stage`, the time until it returns, or until the promise it returns is settled, is what an
     * ack says that applying took. Returns what ends it.
     * @template {keyof Events} K
     * @param {K} name
     * @param {(detail: Events[K]) => unknown} listener
     * @returns {() => void}
     */
    on(name, listener) {
      const all = (listeners[name] ??= new Set());
      all.add(listener);
      return () => void all.delete(listener);
    },

    /** Starts, and from now on comes back by itself, as the protocol says. */
    connect() {
      if (running) return;
      running = true;
      listen("addEventListener");
      const mine = ++run;
      void Promise.all(session.events().map(restore)).then(() => run === mine && later(0));
    },

    /** Ends it. What it holds stays; `connect()` starts again. */
    close() {
      running = false;
      listen("removeEventListener");
      disconnect();
      clearTimeout(timer);
    },

    /** Follows one more event. Throws RangeError over 8. @param {string} event */
    follow(event) {
      perform(session.follow(event));
      if (running) void restore(event);
    },

    /** Follows it no longer and forgets what it holds of it. @param {string} event */
    unfollow: (event) => perform(session.unfollow(event)),
  };
  return self;
}
