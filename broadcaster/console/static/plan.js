/** What a plan and its head say about times and places. Pure: `now` is an argument. */

import { milliseconds } from "./format.js";

/**
 * Every stage with where it stands: `name`, `state` ("past", "passed over", "now", "ahead"), `reached` (ms or null), `due`
 * (ms or null), `exact` (whether `due` counts from what happened), `rule` (what the plan says), `armed`.
 */
export function stages(event, history) {
  const reached = new Map(history.map((entry) => [entry.stage, entry.ts]));
  reached.set(event.stage, event.ts);
  const here = event.plan.findIndex((planned) => planned.stage === event.stage);
  const dues = new Map();
  return event.plan.map((planned, place) => {
    const before = planned.of ?? event.plan[place - 1]?.stage;
    const due = dueOf(planned, before, reached, dues);
    dues.set(planned.stage, due);
    return {
      name: planned.stage,
      state: stateOf(place, here, reached.has(planned.stage)),
      reached: reached.get(planned.stage) ?? null,
      due: due?.ms ?? null,
      exact: due?.exact ?? false,
      rule: ruleOf(planned, before),
      armed: planned.armed ?? false,
    };
  });
}

function dueOf(planned, before, reached, dues) {
  if (planned.at) return { ms: Date.parse(planned.at), exact: true };
  const after = milliseconds(planned.after);
  if (after === null || before === undefined) return null;
  if (reached.has(before)) return { ms: reached.get(before) + after, exact: true };
  const expected = dues.get(before);
  return expected ? { ms: expected.ms + after, exact: false } : null;
}

function stateOf(place, here, reached) {
  if (place === here) return "now";
  if (place > here) return "ahead";
  return reached ? "past" : "passed over";
}

function ruleOf(planned, before) {
  if (planned.at) return "planned";
  const after = milliseconds(planned.after);
  return after === null ? "by hand" : `${lasting(after)} after ${before}`;
}

function lasting(ms) {
  const minutes = ms / 60_000;
  if (minutes < 1 || !Number.isInteger(minutes)) return `${Math.round(ms / 1000)} s`;
  return minutes < 120 || minutes % 60 ? `${minutes} min` : `${minutes / 60} h`;
}

/** The stage that a person goes to next: the one after the current one in the plan, or null at the end. */
export function following(event) {
  const here = event.plan.findIndex((planned) => planned.stage === event.stage);
  return event.plan[here + 1]?.stage ?? null;
}

/** What going to `stage` would be: {kind: "forward" | "end" | "revert", over: stages passed over}. */
export function move(event, stage) {
  const names = event.plan.map((planned) => planned.stage);
  const [here, there] = [names.indexOf(event.stage), names.indexOf(stage)];
  if (there < here) return { kind: "revert", over: [] };
  return { kind: there === names.length - 1 ? "end" : "forward", over: names.slice(here + 1, there) };
}

/** What the plan does next by itself: {stage, due: ms or null, why} or null. */
export function upcoming(event) {
  if (!event.next) return null;
  return {
    stage: event.next.stage,
    due: event.next.due ? Date.parse(event.next.due) : null,
    why: event.next.why ?? null,
  };
}

/** Whether a head is another than the one that was shown. */
export function moved(before, after) {
  return before.gen !== after.gen || before.seq !== after.seq;
}
