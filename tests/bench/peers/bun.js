// uWebSockets, by Bun: its own publish to a topic. A device's first message subscribes it.
import { serve, welcome } from "./lines.js";

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("a WebSocket is expected", { status: 400 })),
  websocket: {
    idleTimeout: 0,
    sendPings: false,
    perMessageDeflate: false,
    message(socket) {
      socket.subscribe("bench");
      socket.send(welcome);
    },
  },
});
serve(server.port, (text) => server.publish("bench", text));
