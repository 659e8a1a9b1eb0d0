/** The plan as a time line: what was, what is, what comes, and by which rule. An operator goes to a stage by clicking it. */

import { h, renew, say } from "./dom.js";
import { moment } from "./format.js";
import { stages, upcoming } from "./plan.js";

const STATES = { past: "done", "passed over": "passed over", now: "on air", ahead: "ahead" };

export class TimeLine {
  #page;
  #actions;
  #list = h("ol", { class: "timeline" });
  #revision = h("span", { class: "quiet" });
  #fill = null;

  constructor(page, actions) {
    this.#page = page;
    this.#actions = page.can("POST /v1/events/{id}/transitions") ? actions : null;
    this.node = h(
      "section",
      { class: "panel data", "aria-labelledby": "plan-title" },
      h("div", { class: "panel-head" }, h("h2", { id: "plan-title" }, "Plan"), this.#revision),
      this.#list,
    );
  }

  update() {
    const { event, history } = this.#page;
    say(this.#revision, `revision ${event.revision} · gen ${event.gen}`);
    const next = upcoming(event)?.stage;
    const shown = stages(event, history);
    const armed = event.armed ? shown.find((stage) => stage.state === "ahead" && stage.armed)?.name : null;
    const key = JSON.stringify([shown, next, armed, event.stage]);
    renew(this.#list, key, () => shown.map((stage) => this.#item(stage, next, armed)));
    this.#fill = this.#list.querySelector(".fill");
    this.tick();
  }

  tick() {
    const { event, clock } = this.#page;
    const next = upcoming(event);
    if (!this.#fill) return;
    const share = next?.due && !event.hold ? (clock.now() - event.ts) / Math.max(1, next.due - event.ts) : 0;
    this.#fill.style.setProperty("--share", Math.min(1, Math.max(0, share)).toFixed(4));
  }

  #item(stage, next, armed) {
    const state = stage.state === "ahead" && stage.name === next ? "next" : stage.state;
    const now = this.#page.clock.now();
    const time =
      stage.reached && stage.state !== "ahead"
        ? moment(stage.reached, now)
        : stage.due
          ? `${stage.exact ? "" : "≈ "}${moment(stage.due, now)}`
          : stage.rule;
    const rule = stage.due && stage.rule !== "planned" && stage.state === "ahead" ? stage.rule : "";
    const words = state === "next" ? "next" : STATES[stage.state];
    const inside = [
      h("span", { class: "stage-name" }, stage.name, armTag(stage, armed)),
      h("span", { class: "stage-time" }, time),
      h("span", { class: "stage-rule" }, [words, rule].filter(Boolean).join(" · ")),
    ];
    const rail = h(
      "span",
      { class: "rail", "aria-hidden": "true" },
      stage.state === "now" ? h("span", { class: "fill" }) : null,
    );
    const body =
      this.#actions && stage.state !== "now" && this.#page.event.stage !== "gone"
        ? h(
            "button",
            {
              type: "button",
              class: "stage-body",
              title: `Switch to ${stage.name} …`,
              on: { click: () => this.#actions.go(stage.name) },
            },
            inside,
          )
        : h("div", { class: "stage-body" }, inside);
    return h("li", { data: { state }, "aria-current": stage.state === "now" ? "step" : null }, rail, body);
  }
}

function armTag(stage, armed) {
  if (!stage.armed || stage.state !== "ahead") return null;
  return h("span", { class: stage.name === armed ? "tag good" : "tag" }, stage.name === armed ? "armed" : "to arm");
}
