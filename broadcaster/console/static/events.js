/** The list of events. */

import { call, Problem } from "./api.js";
import { h, renew, say, show } from "./dom.js";
import { duration, moment } from "./format.js";
import { newEvent } from "./newevent.js";

const EVERY = 3000;

export class EventList {
  #shell;
  #rows = h("ul", { class: "events data" });
  #empty = h("div", { class: "empty", hidden: true });
  #filter = h("input", {
    type: "search",
    placeholder: "filter",
    "aria-label": "Filter events",
    on: { input: () => this.#show() },
  });
  #gone = h("input", { type: "checkbox", on: { change: () => this.#show() } });
  #events = null;
  #timer = null;
  #heard = Date.now();
  #well = true;

  constructor(shell) {
    this.#shell = shell;
    shell.title("Events");
    this.node = h(
      "div",
      { class: "page" },
      h(
        "div",
        { class: "page-head" },
        h("h1", {}, "Events"),
        shell.session.scope === "operator"
          ? h("button", { type: "button", class: "button small", on: { click: () => newEvent(shell) } }, "New event")
          : null,
        h("span", { class: "gap" }),
        h("label", { class: "check" }, this.#gone, "deleted ones too"),
        this.#filter,
      ),
      this.#rows,
      this.#empty,
    );
    this.#empty.append(
      h("p", {}, "No event yet."),
      h(
        "p",
        { class: "quiet" },
        h("code", {}, "stagecast event create final --stages upcoming,live,ended"),
        " makes one.",
      ),
    );
  }

  open() {
    this.#look();
  }

  close() {
    clearTimeout(this.#timer);
    this.#timer = false;
  }

  async #look() {
    try {
      const events = [];
      for (let after = ""; after !== null;) {
        const found = await call("GET", `/v1/events${after && `?after=${encodeURIComponent(after)}`}`);
        events.push(...found.events);
        after = found.after;
      }
      [this.#events, this.#heard, this.#well] = [events, Date.now(), true];
      if (this.#timer !== false) this.#show();
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return this.#shell.signedOut();
      this.#well = false;
    }
    if (this.#timer !== false) this.#timer = setTimeout(() => this.#look(), EVERY);
  }

  tick() {
    const age = Date.now() - this.#heard;
    this.#shell.connection(
      this.#well && age < 3 * EVERY ? "live" : "stale",
      this.#well ? "Live" : `Reconnecting · data is ${duration(age)} old`,
    );
    for (const cell of this.#rows.querySelectorAll("[data-ts]"))
      say(cell, `for ${duration(this.#shell.clock.now() - Number(cell.dataset.ts))}`);
  }

  #show() {
    if (!this.#events) return;
    const wanted = this.#filter.value.trim().toLowerCase();
    const shown = this.#events
      .filter(
        (event) =>
          (this.#gone.checked || event.stage !== "gone") && `${event.id} ${event.title}`.toLowerCase().includes(wanted),
      )
      .sort((one, other) => other.ts - one.ts);
    show(this.#empty, this.#events.length === 0);
    renew(this.#rows, JSON.stringify(shown), () => shown.map((event) => this.#row(event)));
    this.tick();
  }

  #row(event) {
    return h(
      "li",
      {},
      h(
        "a",
        { href: `/console/events/${encodeURIComponent(event.id)}` },
        h("span", { class: "event-title" }, event.title, h("small", {}, event.id)),
        h("span", { class: "event-stage", data: { stage: event.stage === "gone" ? "gone" : "some" } }, event.stage),
        h(
          "span",
          { class: "event-since" },
          `since ${moment(event.ts, this.#shell.clock.now())}`,
          h("small", { data: { ts: event.ts } }),
        ),
        h(
          "span",
          { class: "event-hold" },
          event.hold ? h("span", { class: "tag warn", title: event.hold.why }, "on hold") : "",
        ),
      ),
    );
  }
}
