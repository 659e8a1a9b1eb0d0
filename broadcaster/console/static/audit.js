/** Who did what, when, and why. */

import { call, eventPath } from "./api.js";
import { h, renew, say } from "./dom.js";
import { count, moment } from "./format.js";

const ROWS = 100;
const ABILITY = "GET /v1/events/{id}/audit";

export class Audit {
  #page;
  #rows = h("ol", { class: "audit" });
  #more = h("p", { class: "quiet" });
  #read = "";

  constructor(page) {
    this.#page = page;
    this.node = h(
      "section",
      { class: "panel data", "aria-labelledby": "audit-title" },
      h("div", { class: "panel-head" }, h("h2", { id: "audit-title" }, "Audit")),
      this.#rows,
      this.#more,
    );
  }

  /** Whatever changed, somebody did it: the audit has it. */
  async update() {
    const { event, history } = this.#page;
    const key = JSON.stringify([event.gen, event.seq, event.revision, event.hold, event.armed, history.length]);
    if (key === this.#read) return;
    this.#read = key;
    try {
      this.#draw(await this.#lines());
    } catch {
      this.#read = ""; // the next state asks again
    }
  }

  /** Where the broadcaster keeps an audit, all of it; else the accepted transitions. */
  async #lines() {
    const { id, history } = this.#page;
    if (!this.#page.can(ABILITY))
      return history.map((entry) => ({ ...entry, what: "transition", why: entry.reason, detail: "" }));
    const lines = [];
    for (let after = ""; after !== null;) {
      const page = await call("GET", eventPath(id, `/audit${after && `?after=${encodeURIComponent(after)}`}`));
      lines.push(...page.audit);
      after = page.after;
    }
    return lines;
  }

  #draw(lines) {
    const { session, clock, id } = this.#page;
    renew(this.#rows, `${lines.length} ${lines.at(-1)?.ts} ${lines[0]?.ts}`, () =>
      lines
        .slice(-ROWS)
        .reverse()
        .map((line) =>
          h(
            "li",
            { data: { what: line.what } },
            h("span", { class: "audit-seq" }, count(line.seq)),
            h("strong", {}, line.what === "transition" ? line.stage : line.what),
            h("time", { datetime: new Date(line.ts).toISOString() }, moment(line.ts, clock.now())),
            h(
              "span",
              { class: "audit-who" },
              [line.who === session.id ? `${line.who} (you)` : line.who, line.why, line.detail]
                .filter(Boolean)
                .join(" · "),
            ),
          ),
        ),
    );
    say(
      this.#more,
      lines.length > ROWS ? `${count(lines.length - ROWS)} older ones: stagecast event history ${id}` : "",
    );
  }
}
