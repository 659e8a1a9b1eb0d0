/** A new event, its plan typed as people say it. */

import { insist } from "./api.js";
import { ask, field } from "./dialog.js";
import { h } from "./dom.js";
import { milliseconds } from "./format.js";

const EXAMPLE = "upcoming\nlive at 20:45 armed\nhalf-time after 47m\nended";
const LINE = /^(\S+)(?:\s+at\s+(\S+))?(?:\s+after\s+(\S+)(?:\s+of\s+(\S+))?)?(\s+armed)?$/;
const CLOCK = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/;
const SHORT = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/;

/** Asks for it, makes it, and goes to its page. */
export function newEvent(shell) {
  const title = field("Title", "title", { required: true, maxlength: "200" });
  const id = field(
    "Id",
    "id",
    { required: true, pattern: "[a-z0-9._\\-]{1,64}" },
    "what devices follow: a-z, 0-9, dot, dash",
  );
  const plan = h("textarea", { name: "plan", rows: "6", required: true, spellcheck: "false" });
  plan.value = EXAMPLE;
  const [from, to] = [title.querySelector("input"), id.querySelector("input")];
  let typed = false;
  to.addEventListener("input", () => (typed = true));
  from.addEventListener("input", () => {
    if (!typed) to.value = slug(from.value);
  });
  ask({
    title: "New event",
    fields: [
      title,
      id,
      h(
        "label",
        { class: "field" },
        h("span", {}, "Plan, a stage per line"),
        plan,
        h(
          "small",
          {},
          "“at 20:45”, “after 47m”, or nothing: then a person goes there. “armed”: only once a person has armed it.",
        ),
      ),
    ],
    confirm: "Create",
    focus: from,
    async send(form, waiting) {
      const stages = planOf(plan.value, new Date(shell.clock.now()));
      const made = await insist("POST", "/v1/events", { id: to.value, title: from.value, plan: stages }, waiting);
      setTimeout(() => shell.go(`/console/events/${encodeURIComponent(made.id)}`));
    },
    refused: () => null,
  });
}

function slug(text) {
  return text
    .normalize("NFKD")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-+|-+$/g, "")
    .slice(0, 64);
}

/** The plan of these lines; a time of day is the next one from `now`, and no earlier than the stage before. Throws Error. */
export function planOf(text, now) {
  let earliest = now;
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean)
    .map((line) => {
      const found = LINE.exec(line);
      if (!found) throw new Error(`“${line}”: a line is a stage, then “at” a time or “after” a duration, then “armed”`);
      const [, stage, at, after, of, armed] = found;
      const planned = { stage, ...(armed && { armed: true }) };
      if (at) {
        earliest = instant(at, earliest);
        planned.at = earliest.toISOString();
      }
      if (after) planned.after = duration(after);
      if (of) planned.of = of;
      return planned;
    });
}

function instant(text, earliest) {
  const clock = CLOCK.exec(text);
  const when = clock ? new Date(earliest) : new Date(text);
  if (clock) {
    when.setHours(Number(clock[1]), Number(clock[2]), Number(clock[3] ?? 0), 0);
    if (when < earliest) when.setDate(when.getDate() + 1);
  }
  if (Number.isNaN(when.getTime())) throw new Error(`“${text}” is no time such as 20:45 or 2026-12-05T20:45:00Z`);
  return when;
}

function duration(text) {
  if (milliseconds(text) !== null) return text;
  const [whole, hours, minutes, seconds] = SHORT.exec(text) ?? [];
  if (!whole) throw new Error(`“${text}” is no duration such as 47m, 1h30m or PT47M`);
  return `PT${hours ? `${hours}H` : ""}${minutes ? `${minutes}M` : ""}${seconds ? `${seconds}S` : ""}`;
}
