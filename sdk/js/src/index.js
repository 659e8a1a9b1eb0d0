export { createDevice } from "./device.js";
