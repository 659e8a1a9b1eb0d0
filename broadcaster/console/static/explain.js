/** What happened to one device: registry, its host, what it said, the event's stages, on one time line. */

import { call } from "./api.js";
import { field } from "./dialog.js";
import { h, say, show } from "./dom.js";
import { moment } from "./format.js";

const ABILITY = "GET /v1/devices/{device}/explain";
/** The newest lines are shown. */
const ROWS = 60;

export class Explain {
  #page;
  #said = h("p", { class: "quiet", role: "status" });
  /** It scrolls, by keyboard too. */
  #lines = h("ol", { class: "moments", tabindex: "0", "aria-label": "Its time line", hidden: true });
  #asked = 0;

  constructor(page) {
    this.#page = page;
    const input = field("Device", "device", { required: true, maxlength: "64", placeholder: "its id" });
    const form = h(
      "form",
      { class: "explain", on: { submit: (submitted) => this.#submit(submitted) } },
      input,
      h("button", { type: "submit", class: "button small" }, "Explain"),
    );
    this.node = h(
      "section",
      { class: "panel", "aria-labelledby": "explain-title", hidden: !page.can(ABILITY) },
      h("div", { class: "panel-head" }, h("h2", { id: "explain-title" }, "What happened to a device")),
      form,
      this.#said,
      this.#lines,
    );
  }

  update() {}

  async #submit(submitted) {
    submitted.preventDefault();
    const device = submitted.target.elements.device.value.trim();
    if (!device) return;
    const mine = (this.#asked += 1);
    say(this.#said, "asking …");
    const path = `/v1/devices/${encodeURIComponent(device)}/explain?event=${encodeURIComponent(this.#page.id)}`;
    try {
      const { timeline } = await call("GET", path);
      if (mine === this.#asked) this.#draw(device, timeline);
    } catch (error) {
      if (mine !== this.#asked) return;
      show(this.#lines, false);
      say(this.#said, error.message);
    }
  }

  #draw(device, timeline) {
    const now = this.#page.clock.now();
    const older = timeline.length > ROWS ? `, the newest ${ROWS} of ${timeline.length} lines` : "";
    say(this.#said, `${device} at ${moment(now, now)}${older}`);
    show(this.#lines, true);
    this.#lines.replaceChildren(
      ...timeline
        .slice(-ROWS)
        .reverse()
        .map((line) =>
          h(
            "li",
            {},
            h("strong", {}, line.what),
            h("time", { datetime: new Date(line.ts).toISOString() }, moment(line.ts, now)),
            h("span", {}, line.detail),
          ),
        ),
    );
  }
}
