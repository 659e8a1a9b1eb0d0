// ws: one buffer, sent to each client. A device's first message subscribes it.
import { WebSocketServer } from "ws";
import { serve, welcome } from "./lines.js";

const devices = new Set();
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 4096, perMessageDeflate: false });
server.on("connection", (socket) => {
  socket.on("message", () => {
    devices.add(socket);
    socket.send(welcome);
  });
  socket.on("close", () => devices.delete(socket));
  socket.on("error", () => devices.delete(socket));
});
server.on("listening", () =>
  serve(server.address().port, (text) => {
    const data = Buffer.from(text);
    for (const socket of devices) socket.send(data, { binary: false });
  }),
);
