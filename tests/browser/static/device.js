/** One device on a page, and all that it told: the tests start it and read `told`. */

import { mapCache } from "/demo/sdk/cache.js";
import { createDevice } from "/demo/sdk/index.js";

window.told = [];
window.start = ({ event, member, ttl = 3600, cache = false, eager = false }) => {
  const query = new URLSearchParams({ event, member, ttl });
  const session = async (device) => (await fetch(`/demo/session?${query}&device=${device}`)).json();
  window.tokens = 0;
  session("").then(({ ws }) => {
    window.device = createDevice(ws, {
      device: "page",
      events: [event],
      app: "test",
      token: async (device) => {
        window.tokens += 1;
        return (await session(device)).token;
      },
      ...(cache && { cache: mapCache(member) }),
      ...(eager && { random: () => 0 }), // comes back and fetches at once
      tab: `.${Math.random().toString(36).slice(2, 10)}`,
    });
    for (const name of ["stage", "map", "connected", "disconnected", "ended"])
      window.device.on(name, (detail) => window.told.push({ name, ...detail }));
    window.device.connect();
  });
};
