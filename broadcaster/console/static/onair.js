/** What is on air, what comes next, and the buttons. */

import { h, say, show } from "./dom.js";
import { countdown, duration, moment } from "./format.js";
import { following, upcoming } from "./plan.js";

/** How the broadcaster says that the plan stops before a stage until somebody arms it. */
const NOT_ARMED = "to be armed";
/** [id, text, shortcut, ability it needs] */
const BUTTONS = [
  ["next", "Go", "G", "POST /v1/events/{id}/transitions"],
  ["arm", "Arm", "A", "POST /v1/events/{id}/arm"],
  ["hold", "Hold", "H", "POST /v1/events/{id}/hold"],
  ["resume", "Resume", "H", "POST /v1/events/{id}/resume"],
  ["shift", "Shift", "S", "POST /v1/events/{id}/shift"],
  ["revert", "Revert", "R", "POST /v1/events/{id}/transitions"],
  ["end", "End", "E", "POST /v1/events/{id}/transitions"],
];

export class OnAir {
  #page;
  #stage = h("strong", { class: "tally-stage" });
  #since = h("p", { class: "quiet" });
  #nextLabel = h("h2", { class: "label" });
  #nextStage = h("strong", { class: "next-stage" });
  #countdown = h("span", { class: "countdown", role: "timer" });
  #nextTime = h("p", { class: "quiet" });
  #hold = h("p", { class: "hold" });
  #buttons = new Map();

  constructor(page, actions) {
    this.#page = page;
    for (const [id, text, shortcut, ability] of BUTTONS) {
      if (!page.can(ability)) continue;
      const label = h("span", {}, text);
      const button = h(
        "button",
        {
          type: "button",
          class: id === "next" ? "button go" : "button",
          data: { action: id },
          "aria-keyshortcuts": shortcut,
          on: { click: () => actions[id]() },
        },
        label,
        h("kbd", { "aria-hidden": "true" }, shortcut),
      );
      this.#buttons.set(id, { button, label, shortcut });
    }
    const controls = this.#buttons.size
      ? h(
          "div",
          { class: "controls", role: "group", "aria-label": "Controls" },
          [...this.#buttons.values()].map((one) => one.button),
        )
      : null;
    this.node = h(
      "section",
      { class: "onair data", "aria-label": "On air" },
      h("div", { class: "tally" }, h("h2", { class: "label" }, "On air"), this.#stage, this.#since),
      h(
        "div",
        { class: "next" },
        this.#nextLabel,
        h("div", { class: "next-line" }, this.#nextStage, this.#countdown),
        this.#nextTime,
        this.#hold,
      ),
      controls ??
        h("p", { class: "controls quiet" }, "You are signed in as a viewer: this page shows, and changes nothing."),
    );
  }

  /** The button of a shortcut, if it can be pressed now. */
  press(shortcut) {
    for (const one of this.#buttons.values()) {
      if (one.shortcut === shortcut && !one.button.hidden && !one.button.disabled) return one.button;
    }
    return null;
  }

  update() {
    const { event } = this.#page;
    const over = event.stage === "gone";
    say(this.#stage, over ? "deleted" : event.stage);
    this.node.dataset.over = String(over);
    const go = following(event);
    for (const [id, { button, label }] of this.#buttons) {
      const here = event.plan.findIndex((planned) => planned.stage === event.stage);
      const can = {
        next: go,
        hold: !event.hold,
        resume: event.hold,
        revert: here > 0,
        end: go,
        shift: go,
        arm: event.armed || event.plan.some((planned, place) => planned.armed && place > here),
      };
      if (id === "hold") show(button, !event.hold);
      if (id === "resume") show(button, event.hold);
      button.disabled = !can[id] || over;
      if (id === "next") say(label, go ? `Go to ${go}` : "No later stage");
      if (id === "arm") say(label, event.armed ? "Disarm" : "Arm");
    }
    const waits = upcoming(event)?.why === NOT_ARMED && !event.hold && !over;
    this.#hold.dataset.armed = String(Boolean(event.armed && !event.hold));
    if (waits) say(this.#hold, "Not armed: the plan waits for a person here");
    else if (!event.hold) say(this.#hold, event.armed ? "Armed: the plan fires it by itself" : "");
    else
      say(
        this.#hold,
        `On hold: ${event.hold.why} · by ${event.hold.by}, ${moment(event.hold.at, this.#page.clock.now())}`,
      );
    this.tick();
  }

  /** What changes with time alone. */
  tick() {
    const { event, clock } = this.#page;
    const now = clock.now();
    say(this.#since, `since ${moment(event.ts, now)} · ${duration(now - event.ts)}`);
    const next = event.stage === "gone" ? null : upcoming(event);
    say(this.#nextLabel, event.hold && next ? "Next, when resumed" : "Next");
    say(this.#nextStage, next ? next.stage : (following(event) ?? "–"));
    const waits = next?.due && !event.hold && next.why !== NOT_ARMED;
    say(this.#countdown, waits ? countdown(next.due - now) : "");
    if (next?.due)
      say(this.#nextTime, next.due < now ? `was due ${moment(next.due, now)}` : `at ${moment(next.due, now)}`);
    else say(this.#nextTime, next ? next.why : following(event) ? "by hand" : "the plan is at its end");
    this.#countdown.dataset.soon = String(Boolean(waits && next.due - now < 60_000));
  }
}
