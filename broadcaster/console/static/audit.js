/** Who did what, when, and why. */

import { h, renew } from "./dom.js";
import { count, moment } from "./format.js";

const ROWS = 100;

export class Audit {
  #page;
  #rows = h("ol", { class: "audit" });
  #more = h("p", { class: "quiet" });

  constructor(page) {
    this.#page = page;
    this.node = h("section", { class: "panel data", "aria-labelledby": "audit-title" },
      h("div", { class: "panel-head" }, h("h2", { id: "audit-title" }, "Audit")), this.#rows, this.#more);
  }

  update() {
    const { history, session, clock } = this.#page;
    renew(this.#rows, `${history.length} ${history.at(-1)?.seq} ${history[0]?.ts}`, () =>
      history.slice(-ROWS).reverse().map((entry) =>
        h("li", {},
          h("span", { class: "audit-seq" }, count(entry.seq)), h("strong", {}, entry.stage),
          h("time", { datetime: new Date(entry.ts).toISOString() }, moment(entry.ts, clock.now())),
          h("span", { class: "audit-who" }, entry.who === session.id ? `${entry.who} (you)` : entry.who, entry.reason ? ` · ${entry.reason}` : ""))));
    this.#more.textContent = history.length > ROWS ? `${count(history.length - ROWS)} older ones: stagecast event history ${this.#page.id}` : "";
  }
}
