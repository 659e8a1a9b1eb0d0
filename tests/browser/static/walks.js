/** Lives the lives that it is given, with their chance, and says what can be seen after each step. */

import { createSession } from "/demo/sdk/session.js";

export function relive({ device, app, events, steps }) {
  let left = [];
  const random = () => (left.length ? left.shift() : NaN);
  const session = createSession(device, events, random, app);
  return steps.map((step) => {
    left = [...step.draws];
    const effects = structuredClone(act(session, step) ?? []);
    const deadline = session.deadline();
    return {
      effects: effects.map((one) => (one.type === "Dropped" || one.type === "GiveUp" ? { type: one.type } : one)),
      deadline: deadline === Infinity ? null : deadline,
      positions: session.events().map((event) => session.followed(event).position()),
      undrawn: left.length,
    };
  });
}

function act(session, { do: what, at, event, token, frame, status, body }) {
  const acts = {
    opened: () => session.opened(token, at),
    receive: () => session.receive(JSON.stringify(frame), at),
    expire: () => session.expire(at),
    closed: () => session.closed(),
    follow: () => session.follow(event),
    unfollow: () => session.unfollow(event),
    applied: () => session.followed(event)?.applied(at),
    renewed: () => session.renewed(token, at),
    renewal_failed: () => session.renewalFailed(at),
    fetched: () => session.fetched(event, status, body ? JSON.stringify(body) : "", at),
    fetch_failed: () => session.fetched(event, 0, "", at),
  };
  return acts[what]();
}
