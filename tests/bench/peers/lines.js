// What the servers in JavaScript share: lines of stdin that begin with "send ", and a word on the port.
import { createInterface } from "node:readline";

export const welcome = '{"t":"welcome"}';

export function serve(port, publish) {
  createInterface({ input: process.stdin })
    .on("line", (line) => line.startsWith("send ") && publish(line.slice(5)))
    .on("close", () => process.exit(0));
  console.log(`port ${port}`);
}
