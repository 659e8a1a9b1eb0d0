/* The opening handshake of the usual kind: a request that is equal, but for its key, to one that Python has let in
 * (pushy/handshake.py, Connection._open). */
#define _GNU_SOURCE
#include "turn.h"
#include <string.h>

#define KEY_BYTES 24
#define SHAPES_MAX 256
#define SHAPE_BYTES_MAX 1024
static const char KEY_FIELD[] = "\r\nSec-WebSocket-Key: ";
static const char GUID[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 §1.3 */
static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
#define DIGEST_BYTES 20
#define ACCEPT_BYTES 28
static const char BEFORE[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
static const char AFTER[] = "\r\nSec-WebSocket-Protocol: stagecast.v1\r\n\r\n";

/* Where the key is, NULL if there is none: after the field's first place. */
static const char *key_of(const char *request, Py_ssize_t size) {
    const char *field = memmem(request, (size_t)size, KEY_FIELD, sizeof KEY_FIELD - 1);
    const char *key = field ? field + sizeof KEY_FIELD - 1 : NULL;
    return key && key + KEY_BYTES < request + size ? key : NULL;
}

/* 16 bytes in base64: 22 of its letters and two pads. */
static int is_key(const char *key) {
    for (int i = 0; i < KEY_BYTES - 2; i++)
        if (!key[i] || !strchr(BASE64, key[i])) return 0;
    return key[KEY_BYTES - 2] == '=' && key[KEY_BYTES - 1] == '=';
}

static PyObject *shape_of(const char *request, Py_ssize_t size, const char *key) {
    PyObject *shape = PyBytes_FromStringAndSize(NULL, size - KEY_BYTES);
    if (shape) {
        Py_ssize_t before = key - request;
        memcpy(PyBytes_AS_STRING(shape), request, (size_t)before);
        memcpy(PyBytes_AS_STRING(shape) + before, key + KEY_BYTES, (size_t)(size - before - KEY_BYTES));
    }
    return shape;
}

int learn(Turn *t, const char *request, Py_ssize_t size) {
    const char *key = key_of(request, size);
    if (!key || !is_key(key) || size > SHAPE_BYTES_MAX) return 0;
    if (PyDict_GET_SIZE(t->shapes) >= SHAPES_MAX) PyDict_Clear(t->shapes);
    PyObject *shape = shape_of(request, size, key);
    int done = shape ? PyDict_SetItem(t->shapes, shape, Py_None) : -1;
    Py_XDECREF(shape);
    return done;
}

/* RFC 6455 §4.2.2: base64 of SHA-1 of the key and the GUID. */
static int accept_of(Turn *t, const char *key, char *accept) {
    char text[KEY_BYTES + sizeof GUID];
    memcpy(text, key, KEY_BYTES);
    memcpy(text + KEY_BYTES, GUID, sizeof GUID);
    PyObject *bytes = PyBytes_FromStringAndSize(text, KEY_BYTES + sizeof GUID - 1);
    PyObject *hash = bytes ? PyObject_CallOneArg(t->sha1, bytes) : NULL, *digest = hash ? call(hash, N.digest) : NULL;
    int done = -1;
    if (digest && PyBytes_Check(digest) && PyBytes_GET_SIZE(digest) == DIGEST_BYTES) {
        unsigned char d[DIGEST_BYTES + 1] = {0};
        memcpy(d, PyBytes_AS_STRING(digest), DIGEST_BYTES);
        for (int i = 0; i < ACCEPT_BYTES / 4; i++, accept += 4) {
            unsigned three = (unsigned)d[3 * i] << 16 | (unsigned)d[3 * i + 1] << 8 | d[3 * i + 2];
            for (int j = 0; j < 4; j++) accept[j] = BASE64[three >> (18 - 6 * j) & 63];
        }
        accept[-1] = '='; /* 20 bytes are two more than 18 */
        done = 0;
    }
    Py_XDECREF(bytes);
    Py_XDECREF(hash);
    Py_XDECREF(digest);
    return done;
}

static PyObject *new_session(Turn *t, double now, double ends) {
    PyObject *session = made(ServerSession.type), *heard = PyFloat_FromDouble(now), *end = PyFloat_FromDouble(ends);
    PyObject *number = get(t->floor, N.accepts);
    if (session && heard && end && number) {
        PUT(session, ServerSession, _rules, Py_NewRef(t->rules));
        PUT(session, ServerSession, _number, Py_NewRef(number));
        PUT(session, ServerSession, _heard, Py_NewRef(heard));
        PUT(session, ServerSession, _bucket, Py_NewRef(heard));
        PUT(session, ServerSession, _ends, Py_NewRef(end));
        PUT(session, ServerSession, _expires, Py_NewRef(end));
        PUT(session, ServerSession, _pending, Py_NewRef(Py_None));
        PUT(session, ServerSession, phase, Py_NewRef(t->opened));
        PUT(session, ServerSession, claims, Py_NewRef(Py_None));
        PUT(session, ServerSession, app, PyUnicode_New(0, 0));
        PUT(session, ServerSession, events, Py_NewRef(t->no_places));
        PUT(session, ServerSession, start, PyLong_FromLong(0));
    } else {
        Py_CLEAR(session);
    }
    Py_XDECREF(heard);
    Py_XDECREF(end);
    Py_XDECREF(number);
    return session;
}

static int open_session(Turn *t, PyObject *connection, const char *key, double now) {
    char answer[sizeof BEFORE + ACCEPT_BYTES + sizeof AFTER], *at = answer;
    memcpy(at, BEFORE, sizeof BEFORE - 1);
    at += sizeof BEFORE - 1;
    if (accept_of(t, key, at) || count(t->floor, N.accepts, 1) || count(t->floor, N.upgraded, 1)) return -1;
    at += ACCEPT_BYTES;
    memcpy(at, AFTER, sizeof AFTER - 1);
    at += sizeof AFTER - 1;
    PyObject *session = new_session(t, now, now + t->hello_deadline);
    if (!session) return -1;
    PUT(connection, Connection, phase, PyLong_FromLong(1));
    PUT(connection, Connection, session, session);
    return write_out(t, connection, answer, at - answer) || wheel_put(t, connection, now + t->hello_deadline) ? -1 : 1;
}

/* pushy/reception.py, Reception.busy where addresses don't count, there is room, and the turnstile lets one in: 1 if so, 0 if Python is
 * to say, -1 with an error set. */
static int may_enter(Turn *t, double now) {
    PyObject *leaving = get(t->reception, N.leaving), *upgraded = leaving ? get(t->floor, N.upgraded) : NULL;
    int room = upgraded ? leaving == Py_False && !t->by_address && PyLong_AsLong(upgraded) < t->sessions_max : -1;
    Py_XDECREF(leaving);
    Py_XDECREF(upgraded);
    if (room <= 0) return room;
    double burst = PyFloat_AsDouble(SLOT(t->turnstile, Turnstile, _burst)), rate = PyFloat_AsDouble(SLOT(t->turnstile, Turnstile, _rate));
    double at = PyFloat_AsDouble(SLOT(t->turnstile, Turnstile, _at)), free = PyFloat_AsDouble(SLOT(t->turnstile, Turnstile, _free));
    free = free + (now - at) * rate < burst ? free + (now - at) * rate : burst;
    if (PyErr_Occurred()) return -1;
    if (free < 1) return 0;
    PyObject *left = PyFloat_FromDouble(free - 1), *when = PyFloat_FromDouble(now);
    if (!left || !when) {
        Py_XDECREF(left);
        Py_XDECREF(when);
        return -1;
    }
    PUT(t->turnstile, Turnstile, _free, left);
    PUT(t->turnstile, Turnstile, _at, when);
    return 1;
}

int upgrade(Turn *t, PyObject *connection, Py_ssize_t size) {
    if (PyBytes_GET_SIZE(SLOT(connection, Connection, _head)) || SLOT(connection, Connection, proxied) != Py_False ||
        size > SHAPE_BYTES_MAX)
        return 0;
    const char *key = key_of(t->data, size);
    if (!key || !is_key(key)) return 0;
    PyObject *shape = shape_of(t->data, size, key);
    int known = shape ? PyDict_Contains(t->shapes, shape) : -1;
    Py_XDECREF(shape);
    if (known <= 0) return known;
    double now;
    if (now_and_wall(t, &now, NULL)) return -1;
    int enters = may_enter(t, now);
    if (enters) return enters < 0 ? -1 : open_session(t, connection, key, now);
    PyObject *refusal = call_with(t->reception, N.busy, connection);
    if (!refusal) return -1;
    int done = refusal == Py_None    ? open_session(t, connection, key, now)
               : write_now(t) ? -1
               : did(call_with(connection, N.refuse, refusal)) ? -1 : 1;
    Py_DECREF(refusal);
    return done;
}
