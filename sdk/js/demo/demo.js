/**
 * A streaming home screen that is a Stagecast device: at each stage of its event it shows the rows it already holds.
 *
 * What it needs to know comes from `/demo/session`:
 *     GET /demo/session?device=NAME → {"ws", "event", "token", "titles": {id: {"title", "genres"}}}
 * `token` is for the device of that name and null when none is named.
 */

import { describe, link, showStage } from "./screen.js";

/**
 * @typedef {{ title: string, genres: string[] }} Title
 * @typedef {{ ws: string, event: string, token: string | null, titles: Record<string, Title> }} Session
 */

const SDK = "./sdk/index.js";
const CACHE = "./sdk/cache.js";
/** Milliseconds until the screen is an ordinary one, if no stage has come by then. */
const PATIENCE = 1500;

/** @param {string} [device] @returns {Promise<Session>} */
async function session(device) {
  const query = device ? `?device=${encodeURIComponent(device)}` : "";
  const got = await fetch(`session${query}`, { cache: "no-store" });
  if (!got.ok) throw new Error(`no session: HTTP ${got.status}`);
  return got.json();
}

/** The session, as soon as there is one. @returns {Promise<Session>} */
async function firstSession() {
  for (;;) {
    try {
      return await session();
    } catch {
      const seconds = 2 + 3 * Math.random();
      link("waiting", "waiting for a service");
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
}

async function main() {
  const { createDevice } = /** @type {typeof import("../src/index.js")} */ (await import(SDK));
  const { mapCache } = /** @type {typeof import("../src/cache.js")} */ (await import(CACHE));
  const { ws, event, titles } = await firstSession();
  const device = createDevice(ws, {
    device: "demo",
    app: "demo",
    events: [event],
    token: async (name) => /** @type {string} */ ((await session(name)).token),
    cache: mapCache("demo"),
  });
  let switched = "–";

  const refresh = () => {
    const state = device.state(event);
    describe({
      device: device.id,
      event,
      position: state ? `seq ${state.seq}` : "nothing yet",
      map: device.stageMap(event)?.map.slice(14) ?? "none yet",
      fetches: device.fetches === 1 ? "once" : `${device.fetches} times`,
      switched,
    });
  };

  device.on("connected", () => link("live", "connected"));
  device.on("disconnected", () => link("waiting", "reconnecting"));
  device.on("ended", ({ code, why }) => link("ended", why || `ended (${code})`));
  device.on("refused", ({ code }) => link("waiting", code === "unknown_event" ? "waiting for the event" : code));
  device.on("map", refresh);
  device.on("stage", async (change) => {
    const began = performance.now();
    await showStage(change.stage, picksOf(change.payload), titles);
    const took = `in ${Math.max(1, Math.round(performance.now() - began))} ms`;
    switched = change.result === "missing" ? "no payload yet" : took;
    refresh();
  });
  refresh();
  device.connect();
  setTimeout(() => device.state(event) ?? showStage("tonight", [], titles), PATIENCE);
}

/** The titles a payload names: a list of ids, or an object that has one. @param {unknown} payload @returns {string[]} */
function picksOf(payload) {
  const listed = Array.isArray(payload) ? payload : Object.values(Object(payload)).find(Array.isArray);
  return (listed ?? []).filter((/** @type {unknown} */ one) => typeof one === "string");
}

void main();
