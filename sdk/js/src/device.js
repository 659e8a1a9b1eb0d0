/**
 * The device SDK for browsers: a device that connects, follows events and switches its stages.
 *
 *     const device = new Device("wss://live.example/ws", { device: "web", events: ["final"], token: freshToken });
 *     device.on("stage", ({ stage, payload }) => show(stage, payload));
 *     device.connect();
 *
 * What it decides is `session.js` (the protocol) and `backoff.js` (coming back); this module only moves bytes.
 *
 * @typedef {import("./frames.js").Payload} Payload
 * @typedef {import("./frames.js").StageMap} StageMap
 * @typedef {import("./frames.js").State} State
 * @typedef {import("./session.js").Effect} Effect
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
 * @property {string} [tab] a tab's own suffix: `.` and eight random letters, unless told otherwise ("" for a page that is alone)
 * @property {import("./cache.js").MapCache} [cache] keeps stage maps over reloads; without it they live as long as the page
 * @property {typeof WebSocket} [WebSocket]
 * @property {typeof fetch} [fetch]
 * @property {() => number} [random] in [0, 1)
 * @property {Page} [page] where `online`, `visibilitychange` and the like happen
 *
 * @typedef {{ addEventListener?: EventTarget["addEventListener"], removeEventListener?: EventTarget["removeEventListener"],
 *   document?: EventTarget, navigator?: { onLine?: boolean } }} Page
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

import { Reconnect, uniform } from "./backoff.js";
import { DEVICE, NAME } from "./frames.js";
import { Session } from "./session.js";

/** Seconds for TCP, TLS and the handshake. */
const OPEN_WITHIN = 10;
/** Seconds for one pull of a stage map. */
const FETCH_WITHIN = 15;
/** Seconds for the token callback. */
const TOKEN_WITHIN = 30;
/** Seconds until a connection is tried although the browser says that it is offline: some say so for ever. */
const OFFLINE_MAX = 60;
/** Characters of a pulled stage map. */
const BODY_MAX = 65536;
const ABNORMAL = 1006;
/** The longest that setTimeout can, ms. */
const TIMER_MAX = 2 ** 31 - 1;
const WAKES = ["online", "offline", "pageshow"];
const SIGHTS = ["visibilitychange", "resume"];

export class Device {
  /** The device's name on the wire, the tab's suffix included. @readonly */
  id;
  /** Stage maps asked for by HTTP. */
  fetches = 0;
  /** Frames from the node that were none of the protocol's. */
  dropped = 0;
  #url;
  #source;
  /** @type {string | null} */
  #token = null;
  #cache;
  #WebSocket;
  #fetch;
  #random;
  /** @type {Page} */
  #page;
  #session;
  #reconnect;
  /** @type {Map<string, Set<(detail: any) => unknown>>} */
  #listeners = new Map();
  /** Differs whenever the device was started, stopped or lost its connection: what began before is out of date. */
  #run = 0;
  #running = false;
  /** @type {WebSocket | null} */
  #socket = null;
  /** When a node took the token, on the connection that is open now. @type {number | null} */
  #welcomedAt = null;
  /** The browser says that it is offline, and nothing is tried. */
  #held = false;
  /** The session's deadline. @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** Until the next connection, or until it is given up. @type {ReturnType<typeof setTimeout> | undefined} */
  #wait;

  /**
   * Throws TypeError or RangeError for an address or names that the protocol does not take.
   * @param {string} url ws:// or wss://
   * @param {Options} options
   */
  constructor(url, { device, events, token, app = "", tab = tabSuffix(), cache, ...given }) {
    if (!/^wss?:/.test(new URL(url).protocol)) throw new TypeError(`${url} is no ws:// or wss:// URL`);
    this.id = device + tab;
    if (!DEVICE.test(this.id)) throw new RangeError(`${this.id} is no device's name`);
    events.forEach(checkEvent);
    this.#url = url;
    this.#source = token;
    this.#cache = cache;
    this.#WebSocket = given.WebSocket ?? globalThis.WebSocket;
    this.#fetch = given.fetch ?? globalThis.fetch.bind(globalThis);
    this.#random = given.random ?? Math.random;
    this.#page = given.page ?? globalThis;
    this.#session = new Session(this.id, events, this.#random, app);
    this.#reconnect = new Reconnect(this.#random);
  }

  /** Whether a node has welcomed the device on the connection that is open now. */
  get connected() {
    return this.#welcomedAt !== null;
  }

  /** The events it follows. */
  get events() {
    return this.#session.events;
  }

  /** The newest state it took. @param {string} event @returns {State | null} */
  state(event) {
    return this.#session.followed(event)?.state ?? null;
  }

  /** The stage map in use, its own or its cohort's. @param {string} event @returns {StageMap | null} */
  stageMap(event) {
    return this.#session.followed(event)?.map ?? null;
  }

  /** What the event's current stage shows now, or null. @param {string} event @returns {Payload} */
  showing(event) {
    return this.#session.followed(event)?.payload().payload ?? null;
  }

  /**
   * Calls `listener` each time. For `stage`, the time until it returns, or until the promise it returns is settled, is what an ack
   * says that applying took. Returns what ends it.
   * @template {keyof Events} K
   * @param {K} name
   * @param {(detail: Events[K]) => unknown} listener
   * @returns {() => void}
   */
  on(name, listener) {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    return () => void all.delete(listener);
  }

  /** Starts, and from now on comes back by itself, as the protocol says. */
  connect() {
    if (this.#running) return;
    this.#running = true;
    this.#listen("addEventListener");
    const restored = this.events.map((event) => this.#restore(event));
    const run = ++this.#run;
    void Promise.all(restored).then(() => run === this.#run && this.#later(0));
  }

  /** Ends it. What it holds stays; `connect()` starts again. */
  close() {
    this.#running = false;
    this.#listen("removeEventListener");
    this.#disconnected();
    clearTimeout(this.#timer);
  }

  /** Follows one more event. Throws RangeError over 8, or for no event id. @param {string} event */
  follow(event) {
    checkEvent(event);
    this.#do(this.#session.follow(event));
    if (this.#running) void this.#restore(event);
  }

  /** Follows it no longer and forgets what it holds of it. @param {string} event */
  unfollow(event) {
    this.#do(this.#session.unfollow(event));
  }

  // -- one connection after the other

  /**
   * @param {number} seconds
   * @param {boolean} [anyway] even if the browser says that it is offline
   */
  #later(seconds, anyway = false) {
    clearTimeout(this.#wait);
    this.#wait = setTimeout(() => {
      this.#held = !anyway && this.#page.navigator?.onLine === false;
      if (this.#held) this.#later(OFFLINE_MAX, true);
      else void this.#dial(this.#run);
    }, seconds * 1000);
  }

  /** @param {number} run */
  async #dial(run) {
    /** @type {WebSocket} */
    let socket;
    try {
      this.#token ??= await this.#freshToken();
      if (run !== this.#run) return;
      socket = new this.#WebSocket(this.#url, "stagecast.v1");
    } catch (error) {
      if (run === this.#run) this.#ended(ABNORMAL, String(error));
      return;
    }
    const token = this.#token;
    const isCurrent = () => run === this.#run; // the close of a socket that was replaced says nothing about its successor
    this.#socket = socket;
    this.#wait = setTimeout(() => this.#ended(ABNORMAL, "unreachable"), OPEN_WITHIN * 1000);
    socket.onopen = () => {
      if (!isCurrent()) return;
      clearTimeout(this.#wait);
      this.#do(this.#session.opened(token, now()));
    };
    socket.onmessage = ({ data }) => isCurrent() && this.#do(this.#session.receive(data, now()));
    socket.onclose = ({ code, reason }) => isCurrent() && this.#ended(code, reason || `closed with ${code}`);
    socket.onerror = () => {}; // its close follows
  }

  /** Leaves the connection, whatever has become of it. */
  #disconnected() {
    this.#run++;
    clearTimeout(this.#wait);
    this.#held = false;
    this.#session.closed();
    this.#socket?.close(1000);
    this.#socket = this.#welcomedAt = null;
  }

  /**
   * @param {number} code
   * @param {string} why
   */
  #ended(code, why) {
    const next = this.#reconnect.after(code, this.#welcomedAt === null ? 0 : now() - this.#welcomedAt);
    this.#disconnected();
    if (!next || (next.newToken && typeof this.#source === "string")) {
      this.close();
      this.#emit("ended", { code, why });
      return;
    }
    if (next.newToken) this.#token = null;
    this.#later(next.seconds);
    this.#arm();
    this.#emit("disconnected", { code, why, seconds: next.seconds });
  }

  /** @param {"addEventListener" | "removeEventListener"} how */
  #listen(how) {
    for (const name of WAKES) this.#page[how]?.(name, this.#wake);
    for (const name of SIGHTS) this.#page.document?.[how](name, this.#wake);
  }

  /** The network changed, or the page was asleep: who was cut off then comes back spread out, not with everybody else. */
  #wake = () => {
    if (this.#held && this.#page.navigator?.onLine) this.#later(uniform(this.#random, 0, this.#reconnect.back[1]) / 1000);
    this.#session.probe(now());
    this.#arm();
  };

  // -- effects

  /** @param {Effect[]} effects */
  #do(effects) {
    const caughtUp = effects.some((effect) => effect.type === "Welcomed");
    for (const effect of effects) this.#doOne(effect, caughtUp);
    this.#arm();
  }

  /**
   * @param {Effect} effect
   * @param {boolean} caughtUp
   */
  #doOne(effect, caughtUp) {
    switch (effect.type) {
      case "Send":
        if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(effect.frame));
        break;
      case "Welcomed":
        this.#reconnect.steer(effect.back);
        this.#reconnect.welcomed();
        this.#welcomedAt = now();
        this.#emit("connected", { session: effect.sid });
        break;
      case "Leaving":
        if (effect.back) this.#reconnect.steer(effect.back);
        break;
      case "Switched":
        this.#switched(effect.state, { result: effect.result, payload: effect.payload, caughtUp, late: false });
        break;
      case "Filled":
        this.#switched(effect.state, { result: "switched", payload: effect.payload, caughtUp, late: true });
        break;
      case "MapHeld":
        if (!effect.map.cohort) void this.#cache?.save(effect.map);
        this.#emit("map", effect.map);
        break;
      case "FetchDue":
        void this.#pull(effect);
        break;
      case "TokenDue":
        if (typeof this.#source !== "string") void this.#renew();
        break;
      case "Refused":
        this.#emit("refused", { event: effect.event, code: effect.code, text: effect.text });
        break;
      case "Message":
        this.#emit("message", { id: effect.id, kind: effect.kind, body: effect.body });
        break;
      case "Dropped":
        this.dropped++;
        break;
      case "GiveUp":
        this.#ended(ABNORMAL, effect.why);
    }
  }

  /**
   * @param {State} state
   * @param {Pick<Change, "result" | "payload" | "caughtUp" | "late">} how
   */
  #switched(state, how) {
    const { e: event, gen, seq, stage, ts } = state;
    if (stage === "gone") void this.#cache?.drop(event);
    const applied = this.#emit("stage", { event, gen, seq, stage, ts, ...how });
    void applied.then(() => this.state(event) === state && this.#session.applied(event, now()));
  }

  /**
   * @template {keyof Events} K
   * @param {K} name
   * @param {Events[K]} detail
   */
  #emit(name, detail) {
    const calls = [...(this.#listeners.get(name) ?? [])].map(async (listener) => listener(detail));
    // One listener's error is no reason to keep anything from the others, or to lose the connection.
    return Promise.all(calls.map((call) => call.catch((error) => console.error(error))));
  }

  async #freshToken() {
    if (typeof this.#source === "string") return this.#source;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("the token took too long")), TOKEN_WITHIN * 1000);
    });
    try {
      return /** @type {string} */ (await Promise.race([this.#source(this.id), late]));
    } finally {
      clearTimeout(timer);
    }
  }

  async #renew() {
    const run = this.#run;
    try {
      this.#token = await this.#freshToken();
      if (run === this.#run) this.#do(this.#session.renewed(this.#token, now()));
    } catch {
      this.#session.renewalFailed(now());
      this.#arm();
    }
  }

  /** @param {import("./session.js").FetchDue} due */
  async #pull({ event, url, etag }) {
    this.fetches++;
    try {
      const got = await this.#fetch(url, {
        headers: { Authorization: `Bearer ${this.#token}`, ...(etag && { "If-None-Match": `"${etag}"` }) },
        cache: "no-store", // the device is the cache
        credentials: "omit",
        signal: AbortSignal.timeout(FETCH_WITHIN * 1000),
      });
      const body = await got.text();
      this.#do(this.#session.fetched(event, body.length > BODY_MAX ? 0 : got.status, body, now()));
    } catch {
      this.#session.fetchFailed(event);
      this.#arm();
    }
  }

  /** @param {string} event */
  async #restore(event) {
    const map = await this.#cache?.load(event);
    if (map) this.#do(this.#session.restored(map, now()));
  }

  // -- the one timer

  #arm() {
    clearTimeout(this.#timer);
    const deadline = this.#session.deadline();
    if (deadline === null || !this.#running) return;
    const ms = Math.min(Math.max(0, Math.ceil((deadline - now()) * 1000)), TIMER_MAX);
    this.#timer = setTimeout(() => this.#do(this.#session.expire(now())), ms);
  }
}

/** Monotonic seconds: the wall clock of a device may say anything, and jump. */
const now = () => performance.now() / 1000;

/** What tells a tab from others of its browser: one node keeps one connection per device. */
function tabSuffix() {
  const drawn = crypto.getRandomValues(new Uint8Array(8));
  return `.${Array.from(drawn, (byte) => (byte % 36).toString(36)).join("")}`;
}

/** @param {string} event */
function checkEvent(event) {
  if (!NAME.test(event)) throw new RangeError(`${event} is no event's id`);
}
