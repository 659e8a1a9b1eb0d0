/** What an operator can do to an event. Each asks first, and says to how many devices it happens. */

import { call, eventPath, history, insist } from "./api.js";
import { ask, choice, field } from "./dialog.js";
import { h, notice } from "./dom.js";
import { count, counted, duration, moment } from "./format.js";
import { following, move, moved, stages, upcoming } from "./plan.js";

/** Shifts offered, in minutes. */
const SHIFTS = [-15, -5, -1, 1, 5, 15];

export class Actions {
  #page;
  /** The open dialog that judges by a head: {dialog, event}. */
  #open = null;

  /** `page`: {id, event, progress, history, session, clock, can(ability), ask again: look()} */
  constructor(page) {
    this.#page = page;
  }

  get #event() {
    return this.#page.event;
  }

  /** "1,203,552 devices", as of the last census. */
  get #audience() {
    return counted(this.#page.progress.subscribed, "device");
  }

  /** The head may be another now: a dialog that was about the old one says so, and sends nothing. */
  async update() {
    const { event } = this.#page;
    if (!this.#open) return;
    if (moved(this.#open.event, event)) {
      const said = await this.#whatHappened(event);
      this.#open?.dialog.settle(said.title, said.detail);
      this.#open = null;
    } else this.#open.retitle?.();
  }

  /** Goes to a stage, whatever that is in the plan. */
  go(stage) {
    const { kind, over } = move(this.#event, stage);
    const name = stage.toUpperCase();
    const urgent = h(
      "label",
      { class: "check", hidden: true },
      h("input", { type: "checkbox", name: "urgent" }),
      "urgent: now, whatever the plan says",
    );
    const lead = [h("p", { class: "from-to" }, h("span", {}, this.#event.stage), " → ", h("strong", {}, stage))];
    if (over.length) lead.push(h("p", {}, `Passes over ${over.join(", ")}: the plan will not go back there.`));
    if (kind === "revert")
      lead.push(h("p", {}, "This goes back. The plan is on hold from then on, until you resume it."));
    if (kind === "end") lead.push(h("p", {}, "This is the last stage of the plan: the event ends."));
    this.#judged({
      title: () => `Switch ${this.#audience} to ${name}`,
      lead,
      fields: [this.#reason(), urgent],
      refused: (error) => offerUrgent(urgent, error),
      confirm: kind === "revert" ? `Go back to ${name}` : `Switch to ${name}`,
      tone: kind === "forward" ? "go" : "careful",
      send: async (form, waiting, { gen, seq }) => {
        const body = {
          stage,
          if_gen: gen,
          if_seq: seq,
          urgent: form.elements.urgent.checked,
          reason: form.elements.reason.value.trim(),
        };
        const got = await insist("POST", eventPath(this.#page.id, "/transitions"), body, waiting);
        notice(
          `${name} accepted as seq ${got.seq}${got.log === "late" ? "; the log is late, devices get it as soon as it answers" : ""}`,
          got.log === "late" ? "bad" : "good",
        );
      },
    });
  }

  next() {
    const stage = following(this.#event);
    if (stage) this.go(stage);
  }

  end() {
    const last = this.#event.plan.at(-1).stage;
    if (last !== this.#event.stage) this.go(last);
  }

  /** Deletes the event: devices are told `gone`. Its history and report stay. */
  delete(shell) {
    const { title } = this.#event;
    this.#judged({
      title: () => `Delete ${title} (${this.#page.id})`,
      lead: [
        h("p", {}, `Ends it for ${this.#audience}, for good: its stage becomes gone, and no plan brings it back.`),
        h("p", { class: "quiet" }, "History and report stay. The same id may be created anew."),
      ],
      confirm: "Delete",
      tone: "careful",
      send: async (_form, waiting) => {
        await insist("DELETE", eventPath(this.#page.id), undefined, waiting);
        notice(`${title} is deleted`);
      },
    }).closed.then((done) => done && shell.go("/console/"));
  }

  /** Asks which earlier stage first, if there are several. */
  revert() {
    const here = this.#event.plan.findIndex((planned) => planned.stage === this.#event.stage);
    const earlier = this.#event.plan
      .slice(0, Math.max(here, 0))
      .map((planned) => planned.stage)
      .reverse();
    if (earlier.length < 2) return earlier.forEach((stage) => this.go(stage));
    ask({
      title: "Go back to which stage?",
      fields: [
        choice(
          "Stage",
          "stage",
          earlier.map((stage) => [stage, stage]),
          earlier[0],
        ),
      ],
      confirm: "Choose",
      send: (form) => this.#after(form.elements.stage.value),
      refused: () => null,
    });
  }

  #after(stage) {
    setTimeout(() => this.go(stage));
  }

  hold() {
    this.#simple({
      title: () => `Hold the plan; ${this.#audience} stay on ${this.#event.stage.toUpperCase()}`,
      lead: h("p", {}, "The plan fires nothing until you resume it. You can still switch by hand."),
      fields: [this.#reason()],
      confirm: "Hold",
      path: "/hold",
      body: (form) => ({ reason: form.elements.reason.value.trim() }),
      said: "on hold",
    });
  }

  resume() {
    const next = upcoming(this.#event);
    const what = next?.due
      ? `Next: ${next.stage} at ${moment(next.due, this.#page.clock.now())}.`
      : "No stage has a time now.";
    this.#simple({
      title: () => `Resume the plan for ${this.#audience}`,
      lead: h("p", {}, `The plan fires again by itself. ${what}`),
      confirm: "Resume",
      path: "/resume",
      body: () => ({}),
      said: "resumed",
    });
  }

  shift() {
    const now = this.#page.clock.now();
    const { revision } = this.#event;
    const later = stages(this.#event, this.#page.history).filter((stage) => stage.state === "ahead" && stage.due);
    if (!later.length) return notice("No later stage has a time to shift", "bad");
    const minutes = field(
      "Minutes",
      "minutes",
      { type: "number", step: "0.5", value: "5", required: true, min: "-1440", max: "1440" },
      "negative: earlier",
    );
    const input = minutes.querySelector("input");
    const from = choice(
      "From stage",
      "from",
      later.map((stage) => [stage.name, stage.name]),
      later[0].name,
    );
    const times = h("ul", { class: "shifted" });
    const preview = () => {
      const start = later.findIndex((stage) => stage.name === from.querySelector("select").value);
      times.replaceChildren(
        ...later
          .slice(start)
          .map((stage) =>
            h(
              "li",
              {},
              h("span", {}, stage.name),
              h(
                "span",
                {},
                moment(stage.due, now),
                " → ",
                h("strong", {}, moment(stage.due + Number(input.value) * 60_000, now)),
              ),
            ),
          ),
      );
    };
    const steps = h(
      "div",
      { class: "steps", role: "group", "aria-label": "Usual shifts" },
      SHIFTS.map((step) =>
        h(
          "button",
          {
            type: "button",
            class: "button small",
            on: {
              click: () => {
                input.value = step;
                preview();
              },
            },
          },
          `${step > 0 ? "+" : "−"}${Math.abs(step)} min`,
        ),
      ),
    );
    input.addEventListener("input", preview);
    from.addEventListener("change", preview);
    preview();
    this.#simple({
      title: () => `Shift all later stages for ${this.#audience}`,
      fields: [steps, minutes, from, times],
      confirm: "Shift",
      path: "/shift",
      body: (form) => ({
        by: isoMinutes(Number(form.elements.minutes.value)),
        from: form.elements.from.value,
        revision,
      }),
      said: "shifted",
    });
  }

  /** Arms or disarms; when the checks say no-go, they are shown and a reason is wanted to override them. */
  arm() {
    if (this.#event.armed) {
      return this.#simple({
        title: () => "Disarm",
        lead: h("p", {}, "The plan no longer fires its armed stages by itself."),
        confirm: "Disarm",
        path: "/arm",
        body: () => ({ armed: false }),
        said: "disarmed",
      });
    }
    const override = field("Override, because", "override", {
      maxlength: "200",
      placeholder: "a reason, for the audit",
    });
    const failed = h("div", {});
    override.hidden = true;
    this.#simple({
      title: () => `Arm for ${this.#audience}`,
      lead: h("p", {}, "From then on the plan fires its armed stages by itself."),
      fields: [failed, override],
      confirm: "Arm",
      path: "/arm",
      body: (form) => ({
        armed: true,
        ...(form.elements.override.value.trim() ? { override: form.elements.override.value.trim() } : {}),
      }),
      said: "armed",
      refused: (error) => {
        const checks = error.body?.checks;
        if (!checks) return false;
        failed.replaceChildren(
          h("p", { class: "bad" }, "No-go:"),
          h(
            "ul",
            { class: "plain" },
            checks.filter((check) => !check.ok).map((check) => h("li", {}, `${check.name}: ${check.text}`)),
          ),
        );
        override.hidden = false;
        override.querySelector("input").required = true;
        override.querySelector("input").focus();
        return true;
      },
    });
  }

  #reason() {
    return field("Reason", "reason", { maxlength: "200", placeholder: "optional, for the audit" });
  }

  /** A dialog about the head as it is now, given to `send`. `refused(error)`: true if it has dealt with it in the dialog. */
  #judged({ title, send, refused = () => false, ...rest }) {
    const event = this.#event;
    const dialog = ask({
      ...rest,
      title: title(),
      send: (form, waiting) => send(form, waiting, event).then(() => this.#page.look()),
      refused: (error) => (refused(error) ? null : this.#refused(error, event)),
    });
    const open = { dialog, event, retitle: () => dialog.retitle(title()) };
    this.#open = open;
    dialog.closed.then(() => {
      if (this.#open === open) this.#open = null;
    });
    return dialog;
  }

  #simple({ path, body, said, ...rest }) {
    this.#judged({
      ...rest,
      send: async (form) => {
        await call("POST", eventPath(this.#page.id, path), body(form));
        notice(`${this.#event.title}: ${said}`);
      },
    });
  }

  /** What to show instead of the question: where the event is now, if that is why; null shows the error and lets one try again. */
  async #refused(error, event) {
    const head = error.body?.head;
    if (!head || !moved(event, head)) return null;
    this.#page.look();
    const said = await this.#whatHappened(head);
    return { ...said, detail: [...said.detail, h("p", { class: "quiet" }, `The broadcaster says: ${error.message}.`)] };
  }

  #name(who) {
    if (!who) return "somebody else";
    if (who === "plan") return "the plan";
    return who === this.#page.session.id ? `you (${who})` : who;
  }

  /** Who brought the event to where it is, for somebody who wanted something else. */
  async #whatHappened(head) {
    const entries = await history(this.#page.id, Math.max(0, head.seq - 1)).catch(() => []);
    const entry = entries.find((one) => one.seq === head.seq);
    const name = head.stage.toUpperCase();
    const ago = duration(this.#page.clock.now() - head.ts);
    return {
      title: `${name} was triggered by ${this.#name(entry?.who)} ${ago} ago`,
      detail: [
        h("p", {}, "The event moved on while you were deciding, so nothing was sent."),
        entry?.reason ? h("p", {}, `Reason: ${entry.reason}`) : null,
        h("p", {}, `Now: ${head.stage}, seq ${count(head.seq)}.`),
      ].filter(Boolean),
    };
  }
}

/** Shows the way round a plan's "not yet"; true if that was the reason. */
function offerUrgent(urgent, error) {
  if (error.status !== 409 || !/say urgent/.test(error.message)) return false;
  urgent.hidden = false;
  urgent.querySelector("input").focus();
  return true;
}

function isoMinutes(minutes) {
  const seconds = Math.round(Math.abs(minutes) * 60);
  const [whole, rest] = [Math.floor(seconds / 60), seconds % 60];
  return `${minutes < 0 ? "-" : ""}PT${whole ? `${whole}M` : ""}${rest || !whole ? `${rest}S` : ""}`;
}
