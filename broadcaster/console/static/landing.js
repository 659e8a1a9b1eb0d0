/** Did they get it? How the newest transition lands, what is missing, and why. */

import { call, eventPath } from "./api.js";
import { Curve, recorded, Samples, SEEN_FROM_START, SERIES, shares } from "./curve.js";
import { h, renew, say, show } from "./dom.js";
import { count, counted, latency, moment, percent } from "./format.js";

/** [field, text, what it means] in the order of the bar; their sum is the audience. */
const PARTS = [
  ["written", "written", "went into the device's socket; that alone is not proof that it switched"],
  ["pending", "pending", "waits for a connection that can't take it yet"],
  ["superseded", "superseded", "a newer stage went out instead"],
  ["closed", "closed", "the connection ended first; the device gets the stage when it is back"],
];
const samples = new Samples();

export class Landing {
  #page;
  #what = h("span", { class: "quiet" });
  #badge = h("span", { class: "badge" });
  #figures = new Map();
  #parts = new Map();
  #audience = h("strong", {});
  #latency = h("dl", { class: "quantiles" });
  #reached = h("dl", { class: "quantiles" });
  #reachedHead = h("h3", {}, "From the transition until so many were there");
  #missing = h("ul", { class: "plain missing" });
  #curve = new Curve();
  #first = true;
  #bar = h("div", { class: "stack", "aria-hidden": "true" });

  constructor(page) {
    this.#page = page;
    const figures = SERIES.slice(1)
      .reverse()
      .map(([name, text]) => this.#figure(name, text));
    const legend = h(
      "ul",
      { class: "legend", "aria-hidden": "true" },
      SERIES.map(([name, text]) => h("li", { data: { series: name } }, text)),
    );
    this.node = h(
      "section",
      { class: "panel data", "aria-labelledby": "landing-title" },
      h(
        "div",
        { class: "panel-head" },
        h("h2", { id: "landing-title" }, "Did they get it?"),
        this.#badge,
        h("span", { class: "gap" }),
        this.#what,
      ),
      h("div", { class: "figures" }, figures),
      h("div", { class: "chart" }, this.#curve.node),
      legend,
      h("h3", {}, "Audience ", this.#audience),
      this.#bar,
      h(
        "dl",
        { class: "parts" },
        PARTS.map(([name, text, meaning]) => this.#part(name, text, meaning)),
      ),
      h(
        "div",
        { class: "halves" },
        h("div", {}, h("h3", {}, "From arrival to switched"), this.#latency, this.#reachedHead, this.#reached),
        h("div", {}, h("h3", {}, "What is missing, and why"), this.#missing),
      ),
    );
  }

  #figure(name, text) {
    const [share, detail] = [h("strong", {}), h("span", { class: "quiet" })];
    this.#figures.set(name, { share, detail });
    return h("div", { class: "figure", data: { series: name } }, h("span", { class: "label" }, text), share, detail);
  }

  #part(name, text, meaning) {
    const [number, slice] = [h("dd", {}), h("span", { data: { part: name } })];
    this.#bar.append(slice);
    this.#parts.set(name, { number, slice });
    return h("div", { title: meaning }, h("dt", { data: { part: name } }, text), number);
  }

  update() {
    const { event, progress, clock } = this.#page;
    const now = clock.now();
    samples.take(progress, (now - event.ts) / 1000);
    if (this.#first) this.#recall();
    this.#first = false;
    say(this.#what, `${event.stage} · seq ${count(event.seq)} · ${moment(event.ts, now)}`);
    const state = progress.subscribed === 0 ? "nobody" : progress.converged ? "yes" : "no";
    say(this.#badge, { nobody: "nobody is connected", yes: "converged", no: "converging" }[state]);
    this.#badge.dataset.state = state;
    this.#updateFigures(progress);
    this.#updateParts(progress);
    quantiles(this.#latency, Object.entries(progress.latency_ms));
    quantiles(
      this.#reached,
      Object.entries(progress.reached_ms ?? {}).map(([name, ms]) => [`${name} %`, ms]),
    );
    show(this.#reachedHead, progress.reached_ms);
    show(this.#reached, progress.reached_ms);
    const gaps = missing(progress);
    renew(this.#missing, JSON.stringify(gaps), () => gaps.map(([tone, text]) => h("li", { data: { tone } }, text)));
    this.tick();
  }

  tick() {
    const { event, progress, clock } = this.#page;
    if (!progress) return;
    const settled = progress.subscribed === 0 || progress.at_or_past === progress.subscribed;
    this.#curve.draw(samples.of(progress), (clock.now() - event.ts) / 1000, settled);
  }

  /** What happened before the page was opened, where the broadcaster recorded it. */
  async #recall() {
    const { id, progress } = this.#page;
    if (!this.#page.can("GET /v1/events/{id}/report") || samples.of(progress)[0].seconds < SEEN_FROM_START) return;
    const report = await call("GET", eventPath(id, "/report")).catch(() => null);
    const stage = report?.stages.find((one) => one.seq === progress.seq);
    if (!stage || report.gen !== progress.gen) return;
    samples.seed(progress, recorded(stage));
    this.tick();
  }

  #updateFigures(progress) {
    const { there, switched } = shares(progress);
    const without = progress.missing > 0 ? `, ${count(progress.missing)} without a payload` : "";
    const asked =
      progress.asked > 0
        ? `${count(progress.switched)} of ${count(progress.asked)} asked${without}`
        : "no device is asked for this stage";
    this.#set(
      "there",
      there,
      progress.subscribed
        ? `${count(progress.at_or_past)} of ${counted(progress.subscribed, "device")} connected now`
        : "no device is connected",
    );
    this.#set("switched", switched, interval(progress, asked));
  }

  #set(name, share, detail) {
    const figure = this.#figures.get(name);
    say(figure.share, percent(share, 2));
    say(figure.detail, detail);
  }

  #updateParts(progress) {
    say(this.#audience, counted(progress.audience, "device"));
    for (const [name, { number, slice }] of this.#parts) {
      say(number, count(progress[name]));
      slice.style.flexGrow = String(progress.audience ? progress[name] / progress.audience : 0);
      show(slice, progress[name] > 0);
    }
  }
}

function quantiles(list, found) {
  renew(list, JSON.stringify(found), () =>
    found.map(([name, ms]) => h("div", {}, h("dt", {}, name), h("dd", {}, latency(ms)))),
  );
}

/** How sure a sample makes: 95 % confidence. */
function interval({ confirmed }, asked) {
  if (!confirmed || confirmed.low === confirmed.high) return asked;
  return `${asked}, a sample: ${percent(confirmed.low, 2)} to ${percent(confirmed.high, 2)} of all`;
}

/** Sentences: [tone, text]. */
export function missing(progress) {
  const found = [];
  const say_ = (number, tone, text) => number > 0 && found.push([tone, text]);
  const behind = progress.subscribed - progress.at_or_past;
  const rest = progress.asked - progress.switched - progress.missing - progress.ignored;
  say_(
    progress.pending,
    "warn",
    `${counted(progress.pending, "device")} can't take it yet: their connection is slow; each gets the newest stage as soon as it can`,
  );
  say_(
    progress.missing,
    "bad",
    `${counted(progress.missing, "device")} took the stage without a payload for it: no stage map there has this stage or a default`,
  );
  say_(
    progress.closed,
    "info",
    `${counted(progress.closed, "connection")} ended before it was sent; the stage comes with the welcome when they are back`,
  );
  say_(progress.superseded, "info", `${counted(progress.superseded, "device")} got a newer stage instead`);
  say_(progress.ignored, "info", `${counted(progress.ignored, "device")} had it already`);
  say_(
    progress.silent,
    "bad",
    `${counted(progress.silent, "host")} silent for 15 s: ${progress.silent === 1 ? "its" : "their"} devices count as not there`,
  );
  say_(rest, "info", `${counted(rest, "asked device")} ${rest === 1 ? "has" : "have"} not answered yet`);
  say_(behind, "info", `${counted(behind, "device")} not confirmed by the census yet; it takes 45 s at most`);
  say_(
    progress.subscribed - progress.holding,
    "warn",
    `${counted(progress.subscribed - progress.holding, "device")} without the stage map that this stage asks for`,
  );
  if (!found.length)
    found.push(
      progress.subscribed
        ? ["good", "Nothing: every connected device is there"]
        : ["info", "No device follows this event now"],
    );
  return found;
}
