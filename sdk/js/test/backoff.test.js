import { describe, expect, test } from "vitest";

import { Reconnect } from "../src/backoff.js";
import { scripted, vectors } from "./vectors.js";

describe.each(vectors("retry"))("$what", ({ back, steps }) => {
  test("each close has the wait that the Python SDK has", () => {
    let random = () => 0;
    const again = new Reconnect(() => random());
    again.steer(back);
    for (const step of steps) {
      const chance = scripted(step.draws);
      random = chance.random;
      if (step.stable) again.welcomed();
      const next = again.after(step.code, step.stable);
      const named = next ? { next: next.newToken ? "renew token" : "wait", seconds: next.seconds } : { next: "stay away" };
      expect({ code: step.code, stable: step.stable, draws: step.draws, ...named }).toEqual(step);
      expect(chance.left).toEqual([]);
    }
  });
});

test.each(Object.entries(vectors("closing")))("close code %s: %s", (code, what) => {
  const again = new Reconnect(() => 0.5);
  again.steer([1000, 3000]);
  const next = again.after(Number(code), 0);
  const expected = {
    NO: null,
    BY_PLAN: { seconds: 2, newToken: false },
    BACK_OFF: { seconds: 1.5, newToken: false },
    NEW_TOKEN: { seconds: 1.5, newToken: true },
  }[String(what)];
  expect(next).toEqual(expected);
});

test("bounds in the wrong order are put right", () => {
  const again = new Reconnect(() => 1);
  again.steer([9000, 1000]);
  expect(again.after(4000, 60)).toEqual({ seconds: 9, newToken: false });
});

test("before the first welcome the wait is up to 5 s", () => {
  expect(new Reconnect(() => 1).after(1006, 0)?.seconds).toBe(5);
});
