/** A rehearsal: the plan as a shadow event, faster, with synthetic devices. Nobody's screen sees it. */

import { call, eventPath } from "./api.js";
import { ask, field } from "./dialog.js";
import { h } from "./dom.js";

export const ABILITY = "POST /v1/events/{id}/rehearsals";

/** Asks how fast and with how many, starts it, and goes to the shadow's page. */
export function rehearse(page, shell) {
  let shadow = null;
  ask({
    title: `Rehearse ${page.event.title}`,
    lead: [h("p", {}, "Plays the plan as a shadow event with synthetic devices. No real device sees it.")],
    fields: [
      field("Times as fast", "speed", {
        type: "number",
        value: "10",
        min: "0.1",
        max: "1000",
        step: "any",
        required: true,
      }),
      field("Devices", "devices", { type: "number", value: "50", min: "1", max: "500", required: true }),
    ],
    confirm: "Rehearse",
    async send(form) {
      const { speed, devices } = form.elements;
      const body = { speed: Number(speed.value), devices: Number(devices.value) };
      shadow = (await call("POST", eventPath(page.id, "/rehearsals"), body)).id;
    },
    refused: () => null,
  }).closed.then((done) => done && shell.go(`/console/events/${encodeURIComponent(shadow)}`));
}
