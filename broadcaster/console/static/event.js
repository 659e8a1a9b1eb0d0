/** One event's page: what it holds, and who is told when something changed. */

import { Actions } from "./actions.js";
import { abilities, call, eventPath, history, Problem, Unreachable } from "./api.js";
import { Audit } from "./audit.js";
import { asking, ask } from "./dialog.js";
import { h, show, speak } from "./dom.js";
import { Explain } from "./explain.js";
import { duration } from "./format.js";
import { Hosts } from "./hosts.js";
import { Landing } from "./landing.js";
import { OnAir } from "./onair.js";
import { moved } from "./plan.js";
import { Preview } from "./preview.js";
import { Readiness } from "./readiness.js";
import { ABILITY as REHEARSE, rehearse } from "./rehearse.js";
import { TimeLine } from "./timeline.js";
import { Watch } from "./watch.js";

const SHORTCUTS = [
  ["G", "go to the next stage"],
  ["A", "arm or disarm"],
  ["H", "hold or resume the plan"],
  ["S", "shift later stages"],
  ["R", "revert to an earlier stage"],
  ["E", "end"],
  ["?", "this list"],
];
const KEYS = "stagecast.shortcuts";

export class EventPage {
  id;
  event = null;
  progress = null;
  /** Accepted transitions of this gen, oldest first. */
  history = [];
  #shell;
  #watch;
  #abilities = new Set();
  #panels = [];
  #onAir = null;
  #delete = null;
  #actions = new Actions(this);
  #reading = null;
  #press = (pressed) => this.#shortcut(pressed);

  constructor(shell, id) {
    this.#shell = shell;
    this.id = id;
    this.node = h("div", { class: "page" }, h("p", { class: "alone" }, "loading …"));
    shell.title(id);
    this.#watch = new Watch(id, {
      data: (event, progress) => this.#data(event, progress),
      ended: (status) => this.#ended(status),
    });
  }

  get session() {
    return this.#shell.session;
  }

  get clock() {
    return this.#shell.clock;
  }

  /** Whether this broadcaster has the operation and the person may use it. */
  can(ability) {
    return this.#abilities.has(ability) && (ability.startsWith("GET ") || this.session.scope === "operator");
  }

  async open() {
    document.addEventListener("keydown", this.#press);
    this.#watch.run();
  }

  close() {
    document.removeEventListener("keydown", this.#press);
    this.#watch.stop();
    for (const panel of this.#panels) panel.close?.();
  }

  /** Looks at once, without waiting for what the watch tells next; if nobody answers, the watch tells it later. */
  async look() {
    try {
      const [event, progress] = await Promise.all([
        call("GET", eventPath(this.id)),
        call("GET", eventPath(this.id, "/progress")),
      ]);
      await this.#data(event, progress);
    } catch (error) {
      if (!(error instanceof Unreachable || error instanceof Problem)) throw error;
    }
  }

  tick() {
    const { fresh, age } = this.#watch;
    if (this.event)
      this.#shell.connection(fresh ? "live" : "stale", fresh ? "Live" : `Reconnecting · data is ${duration(age)} old`);
    for (const panel of this.#panels) panel.tick?.();
  }

  async #data(event, progress) {
    const before = this.event;
    if (before && (event.gen < before.gen || (event.gen === before.gen && event.seq < before.seq))) return; // an older answer came late
    this.event = event;
    this.progress = progress;
    if (!before) this.#reading = this.#build();
    else if (moved(before, event)) {
      speak(`${event.stage} is on air`);
      this.#reading = this.#read(before.gen === event.gen);
    }
    await this.#reading;
    if (this.event !== event) return;
    this.#shell.title(`${event.stage.toUpperCase()} · ${event.title}`, event.title);
    if (this.#delete) show(this.#delete, event.stage !== "gone");
    for (const panel of this.#panels) panel.update();
    this.#actions.update();
  }

  async #read(sameGen) {
    if (!sameGen) this.history = [];
    try {
      const entries = await history(this.id, this.history.at(-1)?.seq ?? 0);
      this.history = [...this.history, ...entries];
    } catch {
      // the next change reads what is missing; the page goes on without it
    }
  }

  async #build() {
    this.#abilities = await abilities().catch(() => new Set());
    await this.#read(false);
    this.#onAir = new OnAir(this, this.#actions);
    const [timeLine, landing, hosts, readiness, preview, explain, audit] = [
      new TimeLine(this, this.#actions),
      new Landing(this),
      new Hosts(this),
      new Readiness(this),
      new Preview(this),
      new Explain(this),
      new Audit(this),
    ];
    if (this.can("DELETE /v1/events/{id}"))
      this.#delete = this.#button("Delete", () => this.#actions.delete(this.#shell));
    this.#panels = [this.#onAir, timeLine, landing, hosts, readiness, preview, explain, audit];
    this.node.replaceChildren(
      h(
        "div",
        { class: "page-head" },
        h("h1", {}, this.event.title),
        h("span", { class: "quiet" }, this.id),
        h("span", { class: "gap" }),
        this.can(REHEARSE) ? this.#button("Rehearse", () => rehearse(this, this.#shell)) : null,
        this.session.scope === "operator" ? this.#button("Shortcuts", () => this.#help(), "?") : null,
        this.#delete,
      ),
      this.#onAir.node,
      timeLine.node,
      h(
        "div",
        { class: "columns" },
        h("div", { class: "column" }, landing.node, hosts.node),
        h("div", { class: "column narrow" }, readiness.node, preview.node, explain.node, audit.node),
      ),
    );
  }

  #button(text, click, key) {
    const label = key ? h("kbd", { "aria-hidden": "true" }, key) : null;
    return h("button", { type: "button", class: "button small", on: { click } }, text, label);
  }

  #ended(status) {
    if (status === 401) return this.#shell.signedOut();
    this.#shell.connection(null);
    this.node.replaceChildren(
      h(
        "div",
        { class: "alone" },
        h("h1", {}, "No such event"),
        h("p", {}, `There is no event “${this.id}” here.`),
        h("p", {}, h("a", { href: "/console/" }, "All events")),
      ),
    );
  }

  #shortcut(pressed) {
    const typing = pressed.target.closest?.("input, select, textarea");
    if (asking() || typing || pressed.repeat || pressed.ctrlKey || pressed.metaKey || pressed.altKey || !this.#onAir)
      return;
    if (pressed.key === "?") return this.#help();
    if (localStorage.getItem(KEYS) === "off") return;
    const button = this.#onAir.press(pressed.key.toUpperCase());
    if (!button) return;
    pressed.preventDefault();
    button.focus();
    button.click();
  }

  #help() {
    const off = h("input", { type: "checkbox", name: "on", checked: localStorage.getItem(KEYS) !== "off" });
    ask({
      title: "Shortcuts",
      lead: [
        h(
          "dl",
          { class: "keys" },
          SHORTCUTS.flatMap(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)]),
        ),
        h(
          "p",
          {},
          "Each asks before anything happens: ",
          h("kbd", {}, "Enter"),
          " confirms, ",
          h("kbd", {}, "Esc"),
          " leaves.",
        ),
        h("label", { class: "check" }, off, "letters are shortcuts on this device"),
      ],
      confirm: "OK",
      send: () => localStorage.setItem(KEYS, off.checked ? "on" : "off"),
      refused: () => null,
    });
  }
}
