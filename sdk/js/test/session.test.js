import { describe, expect, test } from "vitest";

import { createSession } from "../src/session.js";
import { scripted, vectors } from "./vectors.js";

const GEN = 1764000000000;
const V1 = `${GEN}-1`;

/**
 * @param {ReturnType<typeof createSession>} session
 * @param {any} step
 */
function play(session, step) {
  const { at, token, event } = step;
  switch (step.do) {
    case "opened":
      return session.opened(token, at);
    case "receive":
      return session.receive(JSON.stringify(step.frame), at);
    case "expire":
      return session.expire(at);
    case "closed":
      return session.closed();
    case "follow":
      return session.follow(event);
    case "unfollow":
      return session.unfollow(event);
    case "applied":
      return session.followed(event)?.applied(at);
    case "renewed":
      return session.renewed(token, at);
    case "renewal_failed":
      return session.renewalFailed(at);
    case "fetched":
      return session.fetched(event, step.status, step.body === null ? "" : JSON.stringify(step.body), at);
    case "fetch_failed":
      return session.fetched(event, 0, "", at);
    default:
      throw new Error(`a vector's step that this session does not know: ${step.do}`);
  }
}

/** Effects as the vectors have them: without the words of an error. @param {any[]} effects */
const portable = (effects) =>
  effects.map((effect) => (effect.type === "Dropped" || effect.type === "GiveUp" ? { type: effect.type } : effect));

describe.each(vectors("session"))("$what", ({ device, app, events, steps }) => {
  test("does step by step what the Python session does", () => {
    let random = () => 0;
    const session = createSession(device, events, () => random(), app);
    for (const step of steps) {
      const chance = scripted(step.draws);
      random = chance.random;
      // Effects are values of a moment: an ack's frame is sent at once, so it is compared as it is now.
      const effects = structuredClone(portable(play(session, step) ?? []));
      const positions = session.events().map((event) => session.followed(event)?.position());
      expect({ effects, deadline: session.deadline(), positions }).toEqual({
        effects: step.effects,
        deadline: step.deadline ?? Infinity,
        positions: step.positions,
      });
      expect(chance.left).toEqual([]);
    }
  });
});

/** @param {object[]} [state] */
const welcome = (state = []) =>
  JSON.stringify({ t: "welcome", sid: "s", now: GEN, ping: 45, back: [2000, 5000], refresh: null, maps: null, state });
const live = { t: "state", e: "final", gen: GEN, seq: 1, stage: "live", ts: GEN, map: V1, fetch: 8000, ack: null };
/** @type {import("../src/frames.js").StageMap} */
const map = { t: "map", e: "final", gen: GEN, map: V1, stages: { live: 1 }, default: null, ttl: 60, cohort: false };

/** @param {() => number} [random] */
function connected(random = () => 0.5) {
  const session = createSession("d1", ["final"], random, "");
  session.opened("token", 100);
  session.receive(welcome(), 100);
  return session;
}

describe("what only a browser needs", () => {
  test("a map kept from before is told in hello, and is at hand at the first stage", () => {
    const session = createSession("d1", ["final"], () => 0.5, "");
    expect(session.restored(map, 0)).toEqual([{ type: "MapHeld", map }]);
    expect(session.opened("token", 1)).toMatchObject([{ frame: { at: [{ e: "final", gen: 0, seq: 0, map: V1 }] } }]);
    expect(session.receive(welcome([live]), 1)[1]).toMatchObject({ type: "Switched", result: "switched", payload: 1 });
  });

  test("a map that comes out of the cache late fills the stage, and the planned fetch is off", () => {
    const session = connected();
    session.receive(JSON.stringify(live), 101);
    expect(session.deadline()).toBe(105);
    expect(session.restored(map, 102)).toMatchObject([{ type: "MapHeld" }, { type: "Filled", payload: 1 }]);
    expect(session.deadline()).toBeGreaterThan(105);
  });

  test("a map of another generation is no use", () => {
    const session = connected();
    session.receive(JSON.stringify({ ...live, gen: GEN + 1 }), 101);
    expect(session.restored(map, 102)).toEqual([]);
    expect(session.followed("final")?.map()).toBe(null);
  });

  test("a probe pings within a second, once, and the pong is due as ever", () => {
    const session = connected(() => 0.25);
    session.probe(110);
    expect(session.deadline()).toBe(110.25);
    expect(session.expire(110.25)).toMatchObject([{ type: "Send", frame: { t: "ping" } }]);
    session.probe(110.3);
    expect(session.deadline()).toBe(120.25);
    expect(session.expire(120.25)).toMatchObject([{ type: "GiveUp" }]);
  });

  test("probes never come faster than one in five seconds, however often the tab is switched", () => {
    const session = connected(() => 0);
    let pings = 0;
    for (let now = 110; now < 120; now += 0.1) {
      session.probe(now);
      for (const effect of session.expire(now)) {
        if (effect.type !== "Send" || effect.frame.t !== "ping") continue;
        pings += 1;
        session.receive(JSON.stringify({ t: "pong", c: effect.frame.c, now: GEN }), now);
      }
    }
    expect(pings).toBe(2);
  });

  test("a probe without a connection does nothing", () => {
    const session = createSession("d1", ["final"], () => 0.5, "");
    session.probe(50);
    expect(session.deadline()).toBe(Infinity);
  });
});

describe("names are values, not properties", () => {
  test.each(["constructor", "__proto__", "tostring", "valueof"])("a stage called %s is missing, unless the map has it", (stage) => {
    const session = connected();
    session.receive(JSON.stringify(map), 101);
    const [switched] = session.receive(JSON.stringify({ ...live, stage }), 102);
    expect(switched).toMatchObject({ result: "missing", payload: null });
    session.receive(`{"t":"map","e":"final","gen":${GEN},"map":"${GEN}-2","stages":{"${stage}":["own"]}}`, 103);
    expect(session.followed("final")?.payload()).toEqual({ result: "switched", payload: ["own"] });
  });

  test("a frame of type constructor is of an unknown type", () => {
    expect(connected().receive('{"t":"constructor"}', 101)).toEqual([]);
  });
});

test("more than eight events are refused", () => {
  const session = createSession("d1", ["a", "b", "c", "d", "e", "f", "g", "h"], () => 0.5, "");
  expect(() => session.follow("i")).toThrow(RangeError);
});
