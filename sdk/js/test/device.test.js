import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { WebSocket as NodeWebSocket } from "ws";

import { GEN, Inbox, V1, createDevice, map, startNode, state } from "./node.js";

const WebSocket = /** @type {any} */ (NodeWebSocket);
/** @type {Awaited<ReturnType<typeof startNode>>} */
let node;
/** @type {import("../src/device.js").Device[]} */
let devices;

beforeEach(async () => {
  node = await startNode();
  devices = [];
});

afterEach(() => {
  for (const device of devices) device.close();
  node.close();
});

/** A device that has been started, and what it tells. @param {Partial<import("../src/device.js").Options>} [options] */
function start(options) {
  const device = createDevice(node.ws, {
    device: "web", tab: "", events: ["final"], token: "token", WebSocket, random: () => 0, page: {}, ...options,
  });
  devices.push(device);
  /** @type {Inbox<any>} */
  const stages = new Inbox();
  /** @type {Inbox<any>} */
  const ends = new Inbox();
  device.on("stage", (change) => stages.put(change));
  device.on("disconnected", (how) => ends.put({ disconnected: how }));
  device.on("ended", (how) => ends.put({ ended: how }));
  device.connect();
  return { device, stages, ends };
}

test("says hello by the subprotocol, switches with the payload at hand, and acks what it was asked for", async () => {
  const { device, stages } = start({ app: "test/1" });
  const peer = await node.peers.next();
  expect(peer.socket.protocol).toBe("stagecast.v1");
  expect(await peer.greet()).toEqual({
    t: "hello", token: "token", device: "web", app: "test/1", at: [{ e: "final", gen: 0, seq: 0, map: null }],
  });
  peer.send(map());
  peer.send(state({ ack: { p: 2 ** 32, w: 0 } }));
  expect(await stages.next()).toEqual({
    event: "final", gen: GEN, seq: 1, stage: "live", ts: GEN, result: "switched", payload: ["t1"], caughtUp: false, late: false,
  });
  expect(await peer.frames.next()).toMatchObject({ t: "ack", e: "final", gen: GEN, seq: 1, r: "switched" });
  expect(device.connected).toBe(true);
  expect(device.showing("final")).toEqual(["t1"]);
});

test("the ack says how long a listener's promise took", async () => {
  const { device } = start({ random: () => 0.5 });
  device.on("stage", () => new Promise((resolve) => setTimeout(resolve, 30)));
  const peer = await node.peers.next();
  await peer.greet();
  peer.send(state({ ack: { p: 2 ** 32, w: 400 } }));
  const { t, ms } = await peer.frames.next();
  expect(t).toBe("ack");
  expect(ms).toBeGreaterThanOrEqual(29);
});

test("every tab is a device of its own, and asks for its token by that name", async () => {
  const names = new Inbox();
  const options = { tab: undefined, random: Math.random, token: (/** @type {string} */ name) => (names.put(name), "fresh") };
  const [one, other] = [start(options).device, start(options).device];
  expect([await names.next(), await names.next()].sort()).toEqual([one.id, other.id].sort());
  expect(one.id).not.toBe(other.id);
  expect(one.id).toMatch(/^web\.[a-z0-9]{4,8}$/);
});

test("a drained device comes back with its position, and takes what it missed", async () => {
  const { stages, ends } = start();
  const first = await node.peers.next();
  await first.greet({ state: [state()] });
  expect(await stages.next()).toMatchObject({ stage: "live", result: "missing", payload: null, caughtUp: true });
  first.send({ t: "goaway", why: "drain", back: [20, 30] });
  first.socket.close(4000, "drain");
  expect(await ends.next()).toEqual({ disconnected: { code: 4000, why: "drain", seconds: 0.02 } });
  const second = await node.peers.next();
  expect(await second.greet({ state: [state({ seq: 3, stage: "ended" })] })).toMatchObject({ at: [{ gen: GEN, seq: 1 }] });
  expect(await stages.next()).toMatchObject({ seq: 3, stage: "ended" });
});

test("a refused token is replaced once; refused again, the device ends", async () => {
  const tokens = ["old", "new", "never"];
  const { device, ends } = start({ token: async () => tokens.shift() ?? "" });
  const first = await node.peers.next();
  expect((await first.frames.next()).token).toBe("old");
  first.socket.close(4401);
  expect(await ends.next()).toMatchObject({ disconnected: { code: 4401 } });
  const second = await node.peers.next();
  expect((await second.frames.next()).token).toBe("new");
  second.socket.close(4401, "unauthorized");
  expect(await ends.next()).toEqual({ ended: { code: 4401, why: "unauthorized" } });
  expect(tokens).toEqual(["never"]);
  expect(device.connected).toBe(false);
});

test("a token that is all there is can't be replaced", async () => {
  const { ends } = start();
  (await node.peers.next()).socket.close(4401);
  expect(await ends.next()).toMatchObject({ ended: { code: 4401 } });
});

test("a replaced device stays away until it is told to connect again", async () => {
  const { device, ends } = start();
  const peer = await node.peers.next();
  await peer.greet();
  peer.socket.close(4409, "replaced");
  expect(await ends.next()).toEqual({ ended: { code: 4409, why: "replaced" } });
  device.connect();
  await (await node.peers.next()).greet();
});

test("no token, no connection: it backs off and asks again", async () => {
  let asked = 0;
  const token = () => (++asked === 1 ? Promise.reject(new Error("no network")) : "second");
  const { ends } = start({ token });
  expect(await ends.next()).toMatchObject({ disconnected: { code: 1006, why: "Error: no network" } });
  expect((await (await node.peers.next()).frames.next()).token).toBe("second");
});

test("a token that is due is renewed on the open connection", async () => {
  const tokens = ["first", "second"];
  start({ token: () => tokens.shift() ?? "" });
  const peer = await node.peers.next();
  await peer.greet({ refresh: 0.01 });
  expect(await peer.frames.next()).toEqual({ t: "auth", token: "second" });
});

test("one socket is shared by all events", async () => {
  const { device, stages } = start();
  const peer = await node.peers.next();
  await peer.greet();
  device.follow("semi");
  expect(await peer.frames.next()).toMatchObject({ t: "sub", at: [{ e: "semi", gen: 0 }] });
  peer.send(state({ e: "semi" }));
  peer.send(state());
  expect([(await stages.next()).event, (await stages.next()).event]).toEqual(["semi", "final"]);
  device.unfollow("semi");
  expect(await peer.frames.next()).toEqual({ t: "unsub", e: ["semi"] });
  expect(device.events()).toEqual(["final"]);
});

test("a missing map is fetched with the device's token; its payload comes late, and later only if it changed", async () => {
  node.answer.status = 200;
  node.answer.body = { ...map({ map: V1 }), refresh_after: 600 };
  const { device, stages } = start();
  const peer = await node.peers.next();
  await peer.greet({ maps: node.maps, state: [state()] });
  expect(await stages.next()).toMatchObject({ result: "missing", late: false });
  const pull = await node.pulls.next();
  expect(pull.url).toBe("/v1/stage-maps/final");
  expect(pull.headers.authorization).toBe("Bearer token");
  expect(pull.headers["if-none-match"]).toBe(undefined);
  expect(await stages.next()).toMatchObject({ result: "switched", payload: ["t1"], late: true });
  node.answer.status = 304;
  peer.send({ t: "hint", e: "final", gen: GEN, map: `${GEN}-2`, w: 0 });
  expect((await node.pulls.next()).headers["if-none-match"]).toBe(`"${V1}"`);
  expect(device.fetches).toBe(2);
});

test("a stage-map API that is away is no reason to lose anything", async () => {
  const { stages } = start({ fetch: () => Promise.reject(new TypeError("Failed to fetch")) });
  const peer = await node.peers.next();
  await peer.greet({ maps: node.maps, state: [state()] });
  peer.send(state({ seq: 2, stage: "ended" }));
  expect([(await stages.next()).seq, (await stages.next()).seq]).toEqual([1, 2]);
});

test("a listener that throws keeps nothing from the others", async () => {
  const complaint = vi.spyOn(console, "error").mockImplementation(() => {});
  const { device, stages } = start();
  const off = device.on("stage", () => {
    throw new Error("the screen is on fire");
  });
  const peer = await node.peers.next();
  await peer.greet();
  peer.send(state());
  expect((await stages.next()).seq).toBe(1);
  off();
  peer.send(state({ seq: 2 }));
  expect((await stages.next()).seq).toBe(2);
  expect(complaint).toHaveBeenCalledTimes(1);
  complaint.mockRestore();
});

test("maps that were kept are told and used; new ones are kept; those of a deleted event go", async () => {
  /** @type {Inbox<any>} */
  const kept = new Inbox();
  const cache = {
    load: async () => /** @type {any} */ ({ ...map(), default: null, ttl: 60, cohort: false }),
    save: async (/** @type {any} */ saved) => kept.put(saved.map),
    drop: async (/** @type {string} */ event) => kept.put(event),
  };
  const { stages } = start({ cache });
  const peer = await node.peers.next();
  const hello = await peer.greet({ state: [state()] });
  expect(hello.at).toEqual([{ e: "final", gen: 0, seq: 0, map: V1 }]);
  expect(await stages.next()).toMatchObject({ result: "switched", payload: ["t1"], caughtUp: true });
  expect(await kept.next()).toBe(V1);
  peer.send(map({ map: `${GEN}-2` }));
  expect(await kept.next()).toBe(`${GEN}-2`);
  peer.send(map({ map: `${GEN}-3`, cohort: true }));
  peer.send(state({ seq: 2, stage: "gone" }));
  expect(await kept.next()).toBe("final");
});

test("what is none of the protocol's is counted and does no harm", async () => {
  const { device, stages } = start();
  const peer = await node.peers.next();
  await peer.greet();
  peer.socket.send("not JSON");
  peer.socket.send(Buffer.from([0xff, 0xfe]), { binary: true });
  peer.send({ t: "later" });
  peer.send(state());
  expect((await stages.next()).seq).toBe(1);
  expect(device.dropped).toBe(2);
});

test("messages and refusals are told", async () => {
  const { device } = start();
  const told = new Inbox();
  device.on("message", ({ id, kind, body }) => told.put({ id, kind, body }));
  device.on("refused", ({ event, code }) => told.put({ event, code }));
  const peer = await node.peers.next();
  await peer.greet();
  peer.send({ t: "msg", id: "1", kind: "offer", body: { x: 1 } });
  peer.send({ t: "err", code: "unknown_event", e: "final" });
  expect(await told.next()).toEqual({ id: "1", kind: "offer", body: { x: 1 } });
  expect(await told.next()).toEqual({ event: "final", code: "unknown_event" });
});

test("offline, nothing is tried; online again, the device comes back at a moment of its own", async () => {
  const page = Object.assign(new EventTarget(), { navigator: { onLine: false } });
  const draws = vi.fn(() => 0.001);
  start({ page, random: draws });
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(node.peers.unread).toBe(0);
  page.navigator.onLine = true;
  draws.mockClear();
  page.dispatchEvent(new Event("online"));
  await (await node.peers.next()).greet();
  expect(draws.mock.calls.length).toBeGreaterThan(0);
});

test("closed means closed: 1000 on the wire, no listener on the page, no way back", async () => {
  const page = new EventTarget();
  const removed = vi.spyOn(page, "removeEventListener");
  const { device, ends } = start({ page });
  const peer = await node.peers.next();
  await peer.greet();
  device.close();
  expect(await peer.closed).toBe(1000);
  expect(removed.mock.calls.map(([name]) => name)).toEqual(["online", "offline", "visibilitychange"]);
  expect([ends.unread, node.peers.unread]).toEqual([0, 0]);
});

test("nothing listens: it backs off, longer each time, and never ends", async () => {
  const { ends } = start({ random: () => 0.001 });
  node.close();
  const waits = [];
  for (let i = 0; i < 4; i++) waits.push((await ends.next()).disconnected.seconds);
  expect(waits).toEqual([0.005, 0.01, 0.02, 0.04].map((seconds) => expect.closeTo(seconds, 5)));
});
