import { describe, expect, test } from "vitest";

import { createReconnect } from "../src/backoff.js";
import { scripted, vectors } from "./vectors.js";

describe.each(vectors("retry"))("$what", ({ back, steps }) => {
  test("each close has the wait that the Python SDK has", () => {
    let random = () => 0;
    const again = createReconnect(() => random());
    again.steer(back);
    for (const step of steps) {
      const chance = scripted(step.draws);
      random = chance.random;
      if (step.stable) again.welcomed();
      const next = again.after(step.code, step.stable);
      const named = next ? { next: next.newToken ? "renew token" : "wait", seconds: next.seconds } : { next: "stay away" };
      expect({ code: step.code, stable: step.stable, draws: step.draws, ...named }).toEqual({ ...step, ...(step.seconds && { seconds: expect.closeTo(step.seconds, 9) }) });
      expect(chance.left).toEqual([]);
    }
  });
});

test.each(Object.entries(vectors("closing")))("close code %s: %s", (code, what) => {
  const again = createReconnect(() => 0.5);
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
  const again = createReconnect(() => 1);
  again.steer([9000, 1000]);
  expect(again.after(4000, 60)).toEqual({ seconds: 9, newToken: false });
});

test("before the first welcome the wait is up to 5 s", () => {
  expect(createReconnect(() => 1).after(1006, 0)?.seconds).toBe(5);
});
