export { mapCache } from "./cache.js";
export { Device } from "./device.js";
