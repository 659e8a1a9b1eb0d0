export { mapCache } from "./cache.js";
export { createDevice } from "./device.js";
