/** Go / no-go: the checks before an event is armed. Not shown where the broadcaster has none. */

import { call, eventPath } from "./api.js";
import { h, renew, say, show } from "./dom.js";

const EVERY = 5000;

export class Readiness {
  #page;
  #verdict = h("strong", { class: "verdict" });
  #checks = h("ul", { class: "checks" });
  #timer = null;
  #closed = false;

  constructor(page) {
    this.#page = page;
    this.node = h(
      "section",
      { class: "panel data", "aria-labelledby": "readiness-title", hidden: true },
      h(
        "div",
        { class: "panel-head" },
        h("h2", { id: "readiness-title" }, "Go / no-go"),
        h("span", { class: "gap" }),
        this.#verdict,
      ),
      this.#checks,
    );
    if (page.can("GET /v1/events/{id}/readiness")) this.#look();
  }

  update() {}

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  async #look() {
    try {
      const found = await call("GET", eventPath(this.#page.id, "/readiness"));
      say(this.#verdict, found.go ? "GO" : "NO-GO");
      this.#verdict.dataset.go = String(found.go);
      renew(this.#checks, JSON.stringify(found.checks), () =>
        found.checks.map((check) =>
          h(
            "li",
            { data: { ok: String(check.ok) } },
            h("span", { class: "mark", role: "img", "aria-label": check.ok ? "go" : "no-go" }, check.ok ? "✓" : "✕"),
            h("span", { class: "check-name" }, check.name),
            h("span", { class: "check-text" }, check.text),
          ),
        ),
      );
      show(this.node, true);
    } catch (error) {
      if (error.status === 404 || error.status === 405) return show(this.node, false);
    }
    if (!this.#closed) this.#timer = setTimeout(() => this.#look(), EVERY);
  }
}
