import { expect, test } from "vitest";

import { decodeFrame } from "../src/frames.js";
import { createSession } from "../src/session.js";
import { map, state, welcome } from "./node.js";

/** Numbers in [0, 1) that are the same every time (mulberry32). @param {number} seed */
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const FRAMES = [
  welcome({ state: [state()] }), state({ ack: { p: 1, w: 1 } }), map({ default: 1, ttl: 5 }),
  { t: "hint", e: "final", gen: 1, map: "1764000000000-9", w: 10 }, { t: "msg", id: "1", kind: "k", body: [] },
  { t: "pong", c: 1, now: 1 }, { t: "goaway", why: "drain", back: [1, 2] }, { t: "err", code: "unavailable", e: "final", text: "" },
];
const ODD = [null, true, -1, 0, 1.5, 1e308, 2 ** 53, "", "\u0000", "x".repeat(65), [], {}, [[]], "__proto__", "🎬"];

/** @param {() => number} random @param {any[]} from */
const pick = (random, from) => from[Math.floor(random() * from.length)];

/** A frame with some of its values exchanged. @param {() => number} random @param {any} value @returns {any} */
function mutated(random, value) {
  if (random() < 0.15) return pick(random, ODD);
  if (Array.isArray(value)) return value.map((one) => mutated(random, one));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(() => random() > 0.05)
      .map(([key, one]) => [key, key === "t" && random() < 0.9 ? one : mutated(random, one)]),
  );
}

/** Text with bytes exchanged, as UTF-8 that went wrong would be read. @param {() => number} random @param {string} text */
function broken(random, text) {
  const bytes = new TextEncoder().encode(text);
  for (let i = 0; i < 3; i++) bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
  return new TextDecoder().decode(bytes.slice(0, Math.ceil(random() * bytes.length * 2)));
}

test("every frame of the protocol is taken, and every prefix of one is none", () => {
  for (const frame of FRAMES) {
    const text = JSON.stringify(frame);
    expect(decodeFrame(text)).toMatchObject(frame);
    for (let end = 0; end < text.length; end++) expect(decodeFrame(text.slice(0, end))).toBe(undefined);
  }
});

test("whatever arrives: nothing is thrown, the order never goes back, and moments stay numbers", () => {
  const random = seeded(5);
  for (let round = 0; round < 300; round++) {
    const session = createSession("d1", ["final"], random, "");
    let now = 0;
    let order = [0, 0];
    session.opened("token", now);
    if (random() < 0.8) session.receive(JSON.stringify(FRAMES[0]), now);
    for (let step = 0; step < 20; step++) {
      now += random() * 10;
      const text = JSON.stringify(mutated(random, pick(random, FRAMES)));
      const data = random() < 0.3 ? broken(random, text) : text;
      if (random() < 0.1) session.fetched("final", 200, data, now);
      else session.receive(random() < 0.02 ? new Uint8Array(4) : data, now);
      if (random() < 0.3) session.expire(now);
      const at = session.followed("final")?.position();
      const next = [at?.gen ?? 0, at?.seq ?? 0];
      expect(next[0] > order[0] || (next[0] === order[0] && next[1] >= order[1])).toBe(true);
      order = next;
      expect(Number.isNaN(session.deadline())).toBe(false);
    }
  }
});
