/** What no real server can do: a socket whose close comes after its successor, a clock that stands. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { createDevice, welcome } from "./node.js";

class FakeSocket {
  /** @type {FakeSocket[]} */
  static all = [];
  /** @type {any[]} */
  sent = [];
  /** @type {any} */
  onopen;
  /** @type {any} */
  onmessage;
  /** @type {any} */
  onclose;
  close = vi.fn();

  constructor() {
    FakeSocket.all.push(this);
  }

  /** @param {string} text */
  send(text) {
    this.sent.push(JSON.parse(text));
  }

  /** @param {object} [frame] */
  greet(frame) {
    this.onopen();
    this.onmessage({ data: JSON.stringify(welcome(frame)) });
  }
}

/** @type {import("../src/device.js").Device} */
let device;
/** @type {any[]} */
let told;
/** @type {EventTarget} */
let page;

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.all = [];
  told = [];
  page = new EventTarget();
  device = createDevice("ws://node.example/ws", {
    device: "web", events: ["final"], token: "token", WebSocket: /** @type {any} */ (FakeSocket), random: () => 0.5, page,
  });
  device.on("disconnected", (how) => told.push(how));
  device.on("ended", (how) => told.push(how));
  device.connect();
});

afterEach(() => {
  device.close();
  vi.useRealTimers();
});

/** @param {number} seconds */
const pass = (seconds) => vi.advanceTimersByTimeAsync(seconds * 1000);

test("a handshake that hangs is given up after 10 s, and the late close of its socket is no news", async () => {
  await pass(0);
  await pass(10);
  expect(told).toEqual([{ code: 1006, why: "unreachable", seconds: 2.5 }]);
  await pass(2.5);
  const [first, second] = FakeSocket.all;
  second.greet();
  first.onclose({ code: 4403, reason: "" });
  first.onopen();
  first.onmessage({ data: "{}" });
  expect([device.connected, told.length, second.sent.length, device.dropped]).toEqual([true, 1, 1, 0]);
  expect(first.close).toHaveBeenCalled();
});

test("a dead connection is found by the missing pong, and left at once, whatever its socket does", async () => {
  await pass(0);
  FakeSocket.all[0].greet();
  await pass(45);
  expect(FakeSocket.all[0].sent.map((frame) => frame.t)).toEqual(["hello", "ping"]);
  await pass(10);
  expect(told).toMatchObject([{ code: 1006, why: "no answer while open" }]);
  await pass(told[0].seconds);
  expect(FakeSocket.all.length).toBe(2);
});

test("a token that hangs is given up after 30 s", async () => {
  const waiting = createDevice("ws://node.example/ws", {
    device: "web", events: [], token: () => new Promise(() => {}), WebSocket: /** @type {any} */ (FakeSocket), page: {},
  });
  const ends = vi.fn();
  waiting.on("disconnected", ends);
  waiting.connect();
  await pass(30.1);
  expect(ends).toHaveBeenCalledWith({ code: 1006, why: "no token", seconds: expect.any(Number) });
  waiting.close();
});

test("a browser that says for ever that it is offline is not believed for more than a minute", async () => {
  const liar = createDevice("ws://node.example/ws", {
    device: "tv", events: [], token: "t", WebSocket: /** @type {any} */ (FakeSocket), page: { navigator: { onLine: false } },
  });
  device.close();
  liar.connect();
  await pass(59);
  expect(FakeSocket.all.length).toBe(0);
  await pass(2);
  expect(FakeSocket.all.length).toBe(1);
  liar.close();
});

test("a map that may be kept for longer than a timer can count keeps the timer quiet", async () => {
  await pass(0);
  const [socket] = FakeSocket.all;
  socket.greet();
  const stages = { t: "map", e: "final", gen: 1, map: "1764000000000-1", stages: {}, ttl: 2 ** 53 - 1 };
  socket.onmessage({ data: JSON.stringify(stages) });
  await pass(1);
  expect(vi.getTimerCount()).toBe(1);
});

test.each(["visibilitychange", "online", "offline"])("at %s the device asks soon whether its connection is alive", async (what) => {
  await pass(0);
  const [socket] = FakeSocket.all;
  socket.greet();
  await pass(20);
  expect(socket.sent.map((frame) => frame.t)).toEqual(["hello"]);
  page.dispatchEvent(new Event(what));
  await pass(0.5);
  expect(socket.sent.map((frame) => frame.t)).toEqual(["hello", "ping"]);
  await pass(10); // it was dead
  expect(told).toMatchObject([{ code: 1006 }]);
});
