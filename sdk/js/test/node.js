/** A node that does as a test tells it, and an API of stage maps: real sockets, no protocol of their own. */
import { once } from "node:events";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

/** The SDK as it is written, or the built one: STAGECAST_SDK=../dist/index.js. */
const sdk = process.env.STAGECAST_SDK ?? "../src/index.js";
export const { createDevice } = /** @type {typeof import("../src/index.js")} */ (await import(sdk));

export const GEN = 1764000000000;
export const V1 = `${GEN}-1`;

/** @param {object} [more] */
export const welcome = (more) => ({
  t: "welcome", sid: "s", now: GEN, ping: 45, back: [5, 10], refresh: null, maps: null, state: [], ...more,
});
/** @param {object} [more] */
export const state = (more) => ({
  t: "state", e: "final", gen: GEN, seq: 1, stage: "live", ts: GEN, map: null, fetch: 0, ack: null, ...more,
});
/** @param {object} [more] */
export const map = (more) => ({ t: "map", e: "final", gen: GEN, map: V1, stages: { live: ["t1"] }, ...more });

/** A queue to wait on. @template T */
export class Inbox {
  /** @type {T[]} */
  #items = [];
  /** @type {((item: T) => void)[]} */
  #waiting = [];

  /** @param {T} item */
  put(item) {
    const waiter = this.#waiting.shift();
    if (waiter) waiter(item);
    else this.#items.push(item);
  }

  /** @returns {Promise<T>} */
  next() {
    const item = this.#items.shift();
    return item === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(item);
  }

  get unread() {
    return this.#items.length;
  }
}

/** One connection, as the node sees it. */
export class Peer {
  /** @type {Inbox<any>} */
  frames = new Inbox();

  /** @param {import("ws").WebSocket} socket */
  constructor(socket) {
    this.socket = socket;
    this.closed = once(socket, "close").then(([code]) => code);
    socket.on("message", (data) => this.frames.put(JSON.parse(String(data))));
  }

  /** @param {object} frame */
  send(frame) {
    this.socket.send(JSON.stringify(frame));
  }

  /** Reads the hello and answers it. @param {object} [more] */
  async greet(more) {
    const hello = await this.frames.next();
    this.send(welcome(more));
    return hello;
  }
}

/** A node on a port of its own. */
export async function startNode() {
  const http = createServer((request, response) => {
    pulls.put({ url: request.url, headers: request.headers });
    const { status, body } = answer;
    response.writeHead(status, { "Content-Type": "application/json" }).end(status === 304 ? undefined : JSON.stringify(body));
  });
  const server = new WebSocketServer({ server: http, handleProtocols: (offered) => [...offered][0] });
  /** @type {Inbox<Peer>} */
  const peers = new Inbox();
  /** @type {Inbox<{ url: string | undefined, headers: import("node:http").IncomingHttpHeaders }>} */
  const pulls = new Inbox();
  const answer = { status: 404, body: /** @type {unknown} */ (null) };
  server.on("connection", (socket) => peers.put(new Peer(socket)));
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (http.address());
  return {
    ws: `ws://127.0.0.1:${port}/ws`,
    maps: `http://127.0.0.1:${port}`,
    peers,
    pulls,
    answer,
    close() {
      for (const client of server.clients) client.terminate();
      server.close();
      http.closeAllConnections();
      http.close();
    },
  };
}
