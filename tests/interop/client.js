// A device on Node's `ws`, which shares no code with ours: `node client.js URL TOKEN DEVICE EVENT` prints what it saw, one JSON
// object a line, and goes on after "welcome" when a state newer than the welcome's comes.
import { once } from "node:events";
import process from "node:process";
import WebSocket from "ws";

const [url, token, device, event] = process.argv.slice(2);
const say = (what, seen) => process.stdout.write(`${JSON.stringify({ what, ...seen })}\n`);

async function opened() {
  const socket = new WebSocket(url, "stagecast.v1"); // offers permessage-deflate, as ws does by default
  await once(socket, "open");
  return socket;
}

async function frame(socket) {
  const [data, binary] = await once(socket, "message");
  return binary ? { t: "binary" } : JSON.parse(data.toString());
}

async function ended(socket) {
  const [code, reason] = await once(socket, "close");
  return { code, reason: reason.toString() };
}

async function greeted(name) {
  const socket = await opened();
  const welcome = frame(socket);
  const hello = { t: "hello", token, device: name, at: [{ e: event, gen: 0, seq: 0, map: null }] };
  socket.send(JSON.stringify(hello));
  return [socket, await welcome];
}

async function refused(protocol, options) {
  const socket = new WebSocket(url, protocol, options);
  socket.on("error", () => {});
  const [, response] = await once(socket, "unexpected-response");
  return { status: response.statusCode };
}

const [socket, welcome] = await greeted(device);
say("open", { subprotocol: socket.protocol, extensions: socket.extensions });
const state = frame(socket);
say("welcome", { t: welcome.t, events: welcome.state.map((one) => one.e) });
const { t, e, stage } = await state;
say("state", { t, e, stage });

let answer = once(socket, "pong");
socket.ping("are you there");
say("pong", { data: (await answer)[0].toString() });

answer = frame(socket);
socket.send('{"t":"pi', { fin: false });
socket.send("", { fin: false });
socket.send('ng","c":7}');
say("fragments", await answer.then(({ t: kind, c }) => ({ t: kind, c })));

let end = ended(socket);
socket.close(1000, "bye");
say("close", { code: (await end).code });

for (const [what, send] of [
  ["binary", (one) => one.send(Buffer.from([1, 2]))],
  ["unmasked", (one) => one.send("{}", { mask: false })],
  ["too big", (one) => one.send("x".repeat(9000))],
  ["not json", (one) => one.send("{")],
  ["no token", (one) => one.send(JSON.stringify({ t: "hello", token: "a.b.c", device }))],
]) {
  const bad = await opened();
  end = ended(bad);
  send(bad);
  say(what, { code: (await end).code });
}

say("other subprotocol", await refused("stagecast.v0"));
say("foreign origin", await refused("stagecast.v1", { origin: "https://evil.example" }));
