/** A viewer's screen: a real device of this event, on a WebSocket of its own, by the browser SDK. It counts as a device does. */

import { call } from "./api.js";
import { h, renew, say, show } from "./dom.js";
import { latency, moment } from "./format.js";

const SDK = "/console/sdk/index.js";
/** Switches listed. */
const LINES = 3;
/** Titles of a payload shown. */
const TILES = 6;

export class Preview {
  #page;
  #device = null;
  #closed = false;
  #map = null;
  #change = null;
  #seen = [];
  #state = h("span", { class: "chip", data: { state: "stale" } }, "connecting");
  #stage = h("strong", { class: "screen-stage" }, "–");
  #tiles = h("ul", { class: "tiles" });
  #text = h("p", { class: "screen-text" });
  #lines = h("ol", { class: "switches" });

  constructor(page) {
    this.#page = page;
    this.node = h(
      "section",
      { class: "panel", "aria-labelledby": "preview-title", hidden: true },
      h(
        "div",
        { class: "panel-head" },
        h("h2", { id: "preview-title" }, "A viewer’s screen"),
        h("span", { class: "gap" }),
        this.#state,
      ),
      h("div", { class: "screen" }, this.#stage, this.#text, this.#tiles),
      this.#lines,
    );
    if (page.session.preview) this.#start();
  }

  update() {}

  close() {
    this.#closed = true;
    this.#device?.close();
  }

  async #start() {
    try {
      const { createDevice } = await import(SDK);
      const name = `console-${this.#page.session.id}`;
      const { ws } = await this.#pass(`${name}.first`);
      if (this.#closed) return;
      const device = createDevice(ws, {
        device: name,
        events: [this.#page.id],
        app: "console",
        token: async (own) => (await this.#pass(own)).token,
      });
      device.on("connected", () => this.#says("live", "connected"));
      device.on("disconnected", ({ seconds }) => this.#says("stale", `back in ${Math.ceil(seconds)} s`));
      device.on("ended", ({ code, why }) => this.#says("stale", `ended: ${why || code}`));
      device.on("map", (map) => this.#holds(map));
      device.on("stage", (change) => this.#switches(change));
      this.#device = device;
      device.connect();
      show(this.node, true);
    } catch {
      show(this.node, false); // no SDK here, or no pass: the page is whole without it
    }
  }

  #pass(device) {
    return call("POST", "/console/preview", { event: this.#page.id, device });
  }

  #says(state, text) {
    this.#state.dataset.state = state;
    say(this.#state, text);
  }

  #holds(map) {
    this.#map = map;
    this.#draw();
  }

  #switches(change) {
    if (change.event !== this.#page.id) return;
    this.#change = change;
    const now = this.#page.clock.now();
    const after = `${latency(Math.max(1, now - change.ts))} after it was accepted`;
    const how = change.late ? `its payload came ${after}` : change.caughtUp ? "by the welcome" : after;
    this.#seen = [{ ...change, at: now, how }, ...this.#seen].slice(0, LINES);
    this.#draw();
  }

  #draw() {
    const change = this.#change;
    if (!change) return;
    say(this.#stage, change.stage);
    const payload = change.payload ?? null;
    const titles = titlesOf(payload);
    say(
      this.#text,
      payload === null
        ? this.#map
          ? "no payload for this stage"
          : "no stage map yet: the screen keeps what it shows"
        : titles.length
          ? ""
          : JSON.stringify(payload).slice(0, 200),
    );
    show(this.#text, this.#text.textContent);
    renew(this.#tiles, JSON.stringify(titles), () => titles.slice(0, TILES).map((title) => h("li", {}, title)));
    renew(this.#lines, JSON.stringify(this.#seen), () =>
      this.#seen.map((one) =>
        h(
          "li",
          { data: { result: one.result } },
          h("strong", {}, one.stage),
          h("span", {}, `${one.result}, ${one.how}`),
          h("time", {}, moment(one.at, one.at)),
        ),
      ),
    );
  }
}

/** What a payload lists, as words: ids, or things with a title. */
function titlesOf(payload) {
  const listed = Array.isArray(payload) ? payload : (Object.values(payload ?? {}).find(Array.isArray) ?? []);
  return listed
    .map((one) => (typeof one === "object" && one ? (one.title ?? one.name ?? one.id) : one))
    .filter((one) => one !== undefined && one !== null)
    .map(String);
}
