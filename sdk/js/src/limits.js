/** The numbers of the protocol that a device keeps to, and those of this SDK. In a file without imports, so that bundling puts them in place. */

/** Events that can be followed at once. */
export const EVENTS_MAX = 8;
/** Seconds from a ping to its pong, from `hello` to `welcome`, and from `goaway` until the device closes by itself. */
export const ANSWER_WITHIN = 10;
/** Seconds from applying something until the ping that tells the positions, at most (or the ping interval, if shorter). */
export const CENSUS_WITHIN = 45;
/** Seconds until a refused event is asked for again. */
export const ASK_AGAIN_MIN = 30;
export const ASK_AGAIN_MAX = 60;
/** Seconds until a token that could not be had is asked for again. */
export const RENEW_AGAIN_MIN = 5;
export const RENEW_AGAIN_MAX = 15;
/** Seconds between two renewals at least, whatever `refresh` says. */
export const RENEW_EVERY_MIN = 10;
/** Seconds between two probes at least: a tab may be switched to and fro faster than a node likes pings. */
export const PROBE_EVERY_MIN = 5;
/** Seconds to the next fetch at least, whatever `refresh_after` says. */
export const REFRESH_MIN = 1;
/** Milliseconds; bounds every backoff but the first of a row, which the node alone decides. */
export const DELAY_MAX = 60000;
/** Seconds of connection after which the next failure is a first one again. */
export const STABLE_AFTER = 30;
/** Seconds for TCP, TLS and the handshake. */
export const OPEN_WITHIN = 10;
/** Seconds for one pull of a stage map. */
export const FETCH_WITHIN = 15;
/** Seconds for the token callback. */
export const TOKEN_WITHIN = 30;
/** Seconds until a connection is tried although the browser says that it is offline: some say so for ever. */
export const OFFLINE_MAX = 60;
/** The longest that setTimeout can, ms. */
export const TIMER_MAX = 0x7fffffff;
/** The close codes that the SDK names: no close frame, or no connection at all; and a token that was not taken. */
export const ABNORMAL = 1006;
export const UNAUTHORIZED = 4401;
