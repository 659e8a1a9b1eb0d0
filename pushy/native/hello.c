/* What a session hears of the usual kind, each one whole frame (rfc6455.py, FrameReader._whole): a hello for one event whose head is
 * known (server_session.py, _hello; hub.py, join), and a ping that says nothing of positions (_ping). */
#define _GNU_SOURCE
#include "turn.h"
#include <stdint.h>
#include <string.h>

#define REST_BYTES_MAX 200 /* of a welcome without what its parts take that have no fixed length */
#define DIGEST_BYTES 16 /* pushy/admission.py */
#define WELCOME_BYTES_MAX 4096

/* The text of one final, masked text frame that is all there is, if it is ASCII and not too
 * long; None for anything else; NULL with an error set. */
static PyObject *text_of(const unsigned char *data, Py_ssize_t size, Py_ssize_t most) {
    Py_ssize_t length = size - 6, at = 2;
    if (length < 0 || data[0] != 0x81) Py_RETURN_NONE;
    if (length > 125) {
        length -= 2;
        at = 4;
        if (length < 126 || data[1] != 0xFE || (data[2] << 8 | data[3]) != length) Py_RETURN_NONE;
    } else if (data[1] != (0x80 | length)) {
        Py_RETURN_NONE;
    }
    if (length > most) Py_RETURN_NONE;
    PyObject *text = PyBytes_FromStringAndSize(NULL, length);
    if (!text) return NULL;
    const unsigned char *mask = data + at, *masked = data + at + 4;
    unsigned char *out = (unsigned char *)PyBytes_AS_STRING(text), any = 0;
    for (Py_ssize_t i = 0; i < length; i++) any |= out[i] = masked[i] ^ mask[i & 3];
    if (any & 0x80) {
        Py_DECREF(text);
        Py_RETURN_NONE;
    }
    return text;
}

static int fits(Turn *t, PyObject *head) {
    return PyBytes_GET_SIZE(t->opening) + PyBytes_GET_SIZE(t->pings) + PyBytes_GET_SIZE(t->maps) + PyBytes_GET_SIZE(head) +
               REST_BYTES_MAX < WELCOME_BYTES_MAX;
}

/* The frame, if it is of this type; None or NULL as above. */
static PyObject *decoded(Turn *t, PyObject *text, PyObject *type) {
    PyObject *frame = PyObject_CallOneArg(t->decode, text);
    if (frame && (PyObject *)Py_TYPE(frame) == type) return frame;
    PyErr_Clear(); /* Python says what is wrong with it */
    Py_XDECREF(frame);
    Py_RETURN_NONE;
}

/* Whether a hello is for one event whose head is known: then *position is set, borrowed from it, and *followed; -1 with an error set. */
static int is_usual(Turn *t, PyObject *frame, PyObject **position, PyObject **followed) {
    PyObject *at = get(frame, N.at), *e = NULL;
    if (at && PyList_Check(at) && PyList_GET_SIZE(at) == 1) {
        *position = PyList_GET_ITEM(at, 0); /* the frame holds it */
        e = get(*position, N.e);
        *followed = e ? PyDict_GetItemWithError(t->events, e) : NULL;
        if (*followed && (SLOT(*followed, Followed, order) == Py_None || !fits(t, SLOT(*followed, Followed, welcome)))) *followed = NULL;
        Py_XINCREF(*followed);
    }
    Py_XDECREF(e);
    Py_XDECREF(at);
    return PyErr_Occurred() ? -1 : *followed != NULL;
}

/* pushy/hub.py, Hub._mark. */
static int mark(Turn *t, PyObject *place, PyObject *position, PyObject *order) {
    PyObject *gen = get(position, N.gen), *seq = gen ? get(position, N.seq) : NULL, *at = seq ? PyTuple_Pack(2, gen, seq) : NULL;
    Py_XDECREF(gen);
    Py_XDECREF(seq);
    if (!at) return -1;
    int same = PyObject_RichCompareBool(at, order, Py_EQ), past = same ? same : PyObject_RichCompareBool(at, order, Py_GT);
    int none = PyObject_RichCompareBool(at, t->nowhere, Py_EQ);
    PyObject *map = past < 0 || none < 0 || (past && !same && count(t->hub, N.ahead, 1)) ? NULL : get(position, N.map);
    if (!map) {
        Py_DECREF(at);
        return -1;
    }
    if (PyUnicode_CheckExact(map)) PyUnicode_InternInPlace(&map);
    if (none) Py_SETREF(at, Py_NewRef(t->nowhere));
    else if (same) Py_SETREF(at, Py_NewRef(order));
    PUT(place, Place, at, at);
    PUT(place, Place, map, map);
    return 0;
}

static int count_one(PyObject *counter, PyObject *key) {
    PyObject *before = PyDict_GetItemWithError(counter, key);
    if (!before && PyErr_Occurred()) return -1;
    PyObject *after = PyLong_FromLong(before ? PyLong_AsLong(before) + 1 : 1);
    int done = after ? PyDict_SetItem(counter, key, after) : -1;
    Py_XDECREF(after);
    return done;
}

static int lengthen(PyObject *lane) {
    PyObject *left = SLOT(lane, Lane, left);
    if (PyLong_AsLong(left)) PUT(lane, Lane, left, PyLong_FromLong(PyLong_AsLong(left) + 1));
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *label_of(Turn *t, PyObject *app) {
    PyObject *label = PyDict_GetItemWithError(t->apps, app);
    return label || PyErr_Occurred() ? Py_XNewRef(label) : call_with(t->hub, N._label, app);
}

/* pushy/hub.py, Hub.join of a connection that has no place yet. */
static int join(Turn *t, PyObject *connection, PyObject *followed, PyObject *position, PyObject *app) {
    PyObject *places = SLOT(followed, Followed, places), *order = SLOT(followed, Followed, order);
    PyObject *waiters = SLOT(followed, Followed, waiters);
    if (PyDict_GET_SIZE(waiters) && PyDict_Contains(waiters, connection) && PyDict_DelItem(waiters, connection)) return -1;
    PUT(followed, Followed, idle, Py_NewRef(Py_None));
    PyObject *place = made(Place.type), *label = place ? label_of(t, app) : NULL, *key = NULL, *one = NULL;
    if (label) {
        PUT(place, Place, outlet, Py_NewRef(connection));
        PUT(place, Place, app, Py_NewRef(label));
        PUT(place, Place, event, Py_NewRef(followed));
        PUT(place, Place, index, PyLong_FromSsize_t(PyList_GET_SIZE(places)));
        PUT(place, Place, sent, Py_NewRef(order));
        PUT(place, Place, acked, Py_NewRef(order));
        PUT(place, Place, owes, PyLong_FromLong(0));
    }
    int done = label && SLOT(place, Place, index) && (one = PyTuple_Pack(1, place)) && !PyList_Append(places, place) ? 0 : -1;
    if (!done) PUT(connection, Connection, places, Py_NewRef(one));
    done = done || lengthen(SLOT(followed, Followed, states)) || lengthen(SLOT(followed, Followed, hints)) ||
           mark(t, place, position, order) || !(key = PyTuple_Pack(2, label, SLOT(place, Place, at))) ||
           count_one(SLOT(followed, Followed, orders), key) || count_one(SLOT(followed, Followed, maps), SLOT(place, Place, map));
    Py_XDECREF(place);
    Py_XDECREF(label);
    Py_XDECREF(key);
    Py_XDECREF(one);
    return done ? -1 : 0;
}

/* Seconds as msgspec writes them: rounded to ms, the shortest text that gives them. */
static char *seconds(double value) {
    char *rounded = PyOS_double_to_string(value, 'f', 3, 0, NULL);
    if (!rounded) return NULL;
    value = PyOS_string_to_double(rounded, NULL, NULL);
    PyMem_Free(rounded);
    return PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
}

/* server_session.py, _welcome, as one frame: its size, 0 with an error set. `refresh` is below 0 for none. */
static Py_ssize_t welcome(Turn *t, PyObject *followed, long long number, long long wall, double refresh, char *out) {
    char body[WELCOME_BYTES_MAX], *due = refresh < 0 ? NULL : seconds(refresh);
    PyObject *back = get(t->rules, N.back), *head = SLOT(followed, Followed, welcome);
    long lo, hi;
    int size = -1;
    if (back && (refresh < 0 || due) && PyArg_ParseTuple(back, "ll", &lo, &hi))
        size = snprintf(body, sizeof body, "%s%llx\",\"now\":%lld,\"ping\":%s,\"back\":[%ld,%ld],\"refresh\":%s,\"maps\":%s,\"state\":[%s]}",
                        PyBytes_AS_STRING(t->opening), number, wall, PyBytes_AS_STRING(t->pings), lo, hi, due ? due : "null",
                        PyBytes_AS_STRING(t->maps), PyBytes_AS_STRING(head));
    PyMem_Free(due);
    Py_XDECREF(back);
    if (size < 126 || size >= (int)sizeof body) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a welcome of this size is not expected");
        return 0;
    }
    out[0] = (char)0x81; /* RFC 6455 §5.2: FIN, text, length in 16 bits */
    out[1] = 126;
    out[2] = (char)(size >> 8);
    out[3] = (char)size;
    memcpy(out + 4, body, (size_t)size);
    return size + 4;
}

/* pushy/admission.py, Admission.admit of a token whose check is remembered, while nothing is revoked: the claims, None if Python is to
 * say, NULL with an error set. */
static PyObject *remembered(Turn *t, PyObject *token, PyObject *wall) {
    Py_ssize_t size;
    const char *text = PyDict_GET_SIZE(t->revocations) ? NULL : PyUnicode_AsUTF8AndSize(token, &size);
    if (!text) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(text, size), *hash = bytes ? PyObject_CallOneArg(t->sha256, bytes) : NULL;
    PyObject *digest = hash ? call(hash, N.digest) : NULL, *key = NULL;
    if (digest && PyBytes_Check(digest) && PyBytes_GET_SIZE(digest) > DIGEST_BYTES)
        key = _PyLong_FromByteArray((const unsigned char *)PyBytes_AS_STRING(digest), DIGEST_BYTES, 0, 0);
    PyObject *claims = key ? PyDict_GetItemWithError(t->remembered, key) : NULL, *exp = claims ? get(claims, N.exp) : NULL;
    int good = exp && PyFloat_AsDouble(exp) > (double)PyLong_AsLongLong(wall) / 1000;
    claims = PyErr_Occurred() ? NULL : Py_NewRef(good ? claims : Py_None);
    Py_XDECREF(bytes);
    Py_XDECREF(hash);
    Py_XDECREF(digest);
    Py_XDECREF(key);
    Py_XDECREF(exp);
    return claims;
}

/* The token's answer, or the end of the connection: 1 and *claims, 0 if it has ended, -1 with an error set. */
static int admitted(Turn *t, PyObject *connection, PyObject *frame, double now, PyObject *wall, PyObject **claims) {
    PyObject *token = get(frame, N.token), *device = get(frame, N.device), *code = NULL, *why = NULL, *dev = NULL;
    *claims = token && device ? remembered(t, token, wall) : NULL;
    if (*claims == Py_None) Py_SETREF(*claims, PyObject_CallFunctionObjArgs(t->admit, token, wall, NULL));
    int same = 0;
    if (*claims) {
        dev = get(*claims, N.dev);
        same = dev ? PyObject_RichCompareBool(dev, device, Py_EQ) : -1;
        if (!same) {
            code = t->forbidden;
            why = PyUnicode_FromString("the token is another device's");
        }
    } else if (PyErr_ExceptionMatches(t->token_error)) {
        PyObject *type, *error, *trace;
        PyErr_Fetch(&type, &error, &trace);
        PyErr_NormalizeException(&type, &error, &trace);
        code = t->unauthorized;
        why = PyObject_Str(error);
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(trace);
    }
    if (why) {
        PyObject *at = PyFloat_FromDouble(now);
        if (!at || write_now(t) || did(PyObject_CallMethodObjArgs(connection, N.end, code, why, at, wall, NULL))) same = -1;
        Py_XDECREF(at);
    }
    Py_XDECREF(token);
    Py_XDECREF(device);
    Py_XDECREF(dev);
    Py_XDECREF(why);
    if (PyErr_Occurred()) same = -1;
    if (same != 1) Py_CLEAR(*claims);
    return same;
}

/* Tokens.Claims.allows. */
static int allows(PyObject *claims, PyObject *position) {
    PyObject *e = get(position, N.e), *evt = e ? get(claims, N.evt) : NULL, *found = NULL;
    int allowed = evt ? PySequence_Contains(evt, e) : -1;
    if (allowed == 0) {
        found = call_with(claims, N.allows, e);
        allowed = found ? PyObject_IsTrue(found) : -1;
    }
    Py_XDECREF(e);
    Py_XDECREF(evt);
    Py_XDECREF(found);
    return allowed;
}

/* pushy/reception.py, Reception.greeted of a member and a device who are not here yet, while other news wait. */
static int greeted(Turn *t, PyObject *connection, PyObject *claims, PyObject *app, PyObject *wall) {
    PyObject *sub = get(claims, N.sub), *dev = sub ? get(claims, N.dev) : NULL, *sid = NULL, *began = NULL, *note = NULL;
    PyObject *number = SLOT(SLOT(connection, Connection, session), ServerSession, _number);
    Py_ssize_t waiting = PyList_GET_SIZE(t->changes);
    int here = dev ? PyDict_Contains(t->by_device, dev) : -1, done = -1;
    if (here == 0) here = PyDict_Contains(t->by_member, sub);
    if (here > 0 || waiting == 0 || waiting >= t->held_max) {
        done = here < 0 || write_now(t) ? -1 : did(call_with(t->reception, N.greeted, connection));
    } else if (here == 0) {
        char hex[20];
        snprintf(hex, sizeof hex, "%llx", PyLong_AsLongLong(number));
        sid = PyUnicode_FromFormat("%U-%s", t->node, hex);
        began = sid ? PyObject_CallFunctionObjArgs(t->began, sub, dev, sid, wall, NULL) : NULL;
        note = began ? PyTuple_Pack(4, wall, dev, number, app) : NULL;
        done = !note || PyDict_SetItem(t->by_member, sub, connection) || PyDict_SetItem(t->by_device, dev, connection) ||
               PyList_Append(t->changes, began) || did(PyObject_CallOneArg(t->note, note)) ? -1 : 0;
    }
    Py_XDECREF(sub);
    Py_XDECREF(dev);
    Py_XDECREF(sid);
    Py_XDECREF(began);
    Py_XDECREF(note);
    return done;
}

/* server_session.py, _hello from the claims on, and what Connection.do does of its steps. */
static int greet(Turn *t, PyObject *connection, PyObject *frame, PyObject *claims, PyObject *position, PyObject *followed, double now,
                 PyObject *wall) {
    PyObject *session = SLOT(connection, Connection, session), *exp = get(claims, N.exp), *app = get(frame, N.app);
    PyObject *random = exp && app ? PyObject_CallNoArgs(t->random) : NULL, *e = random ? get(position, N.e) : NULL;
    PyObject *one = e ? PyTuple_Pack(1, e) : NULL, *events = one ? PyObject_CallOneArg(t->share, one) : NULL;
    int done = -1;
    if (events) {
        double expires = PyFloat_AsDouble(exp), left = expires - (double)PyLong_AsLongLong(wall) / 1000;
        double ends = now + t->lifetime * (1 - PyFloat_AsDouble(random) * t->lifetime_jitter);
        double ahead = left - t->refresh_ahead > left / 2 ? left - t->refresh_ahead : left / 2;
        double refresh = now + left >= ends ? -1 : ahead, until = now + expires - (double)PyLong_AsLongLong(wall) / 1000 + t->grace;
        double deadline = now + t->silence;
        PyUnicode_InternInPlace(&app);
        PUT(session, ServerSession, claims, Py_NewRef(claims));
        PUT(session, ServerSession, _expires, PyFloat_FromDouble(until));
        PUT(session, ServerSession, _ends, PyFloat_FromDouble(ends));
        PUT(session, ServerSession, app, Py_NewRef(app));
        PUT(session, ServerSession, start, Py_NewRef(wall));
        PUT(session, ServerSession, events, Py_NewRef(events));
        PUT(session, ServerSession, phase, Py_NewRef(t->welcomed));
        char out[WELCOME_BYTES_MAX + 4];
        Py_ssize_t size = PyErr_Occurred() ? 0 : welcome(t, followed, PyLong_AsLongLong(SLOT(session, ServerSession, _number)),
                                                         PyLong_AsLongLong(wall), refresh, out);
        deadline = ends < deadline ? ends : deadline;
        deadline = until < deadline ? until : deadline;
        done = !size || greeted(t, connection, claims, app, wall) || wheel_put(t, connection, deadline) || write_out(t, connection, out, size) ||
               join(t, connection, followed, position, app);
    }
    Py_XDECREF(exp);
    Py_XDECREF(app);
    Py_XDECREF(random);
    Py_XDECREF(e);
    Py_XDECREF(one);
    Py_XDECREF(events);
    return done ? -1 : 1;
}

/* server_session.py, receive and charge: 1 if the message is within the rate, and then it has been heard and counted; 0 if Python is to
 * say, -1 with an error set. */
static int heard(Turn *t, PyObject *session, double now) {
    double bucket = PyFloat_AsDouble(SLOT(session, ServerSession, _bucket));
    bucket = (bucket > now ? bucket : now) + t->message_cost;
    if (bucket - now > t->messages_window + 1e-6) return 0;
    PyObject *at = PyFloat_FromDouble(now), *paid = PyFloat_FromDouble(bucket);
    if (!at || !paid) {
        Py_XDECREF(at);
        Py_XDECREF(paid);
        return -1;
    }
    PUT(session, ServerSession, _heard, at);
    PUT(session, ServerSession, _bucket, paid);
    return 1;
}

static int say_hello(Turn *t, PyObject *connection, PyObject *frame) {
    PyObject *session = SLOT(connection, Connection, session), *wall = NULL, *claims = NULL, *position = NULL, *followed = NULL;
    double now;
    int done = is_usual(t, frame, &position, &followed);
    if (done == 1) done = now_and_wall(t, &now, &wall) ? -1 : heard(t, session, now);
    if (done == 1) {
        done = admitted(t, connection, frame, now, wall, &claims);
        int allowed = done == 1 ? allows(claims, position) : 0;
        if (done == 0) {
            done = 1; /* its end has been said */
        } else if (done < 0 || allowed < 0) {
            done = -1;
        } else if (allowed) {
            done = greet(t, connection, frame, claims, position, followed, now, wall);
        } else {
            PyObject *at = PyFloat_FromDouble(now);
            PyObject *said = at && !write_now(t) ? PyObject_CallMethodObjArgs(connection, N.admitted, claims, frame, at, wall, NULL) : NULL;
            done = did(said) ? -1 : 1;
            Py_XDECREF(at);
        }
    }
    Py_XDECREF(wall);
    Py_XDECREF(claims);
    Py_XDECREF(followed);
    return done;
}

/* A number as msgspec writes it: NULL if it may be written otherwise. */
static char *number_of(PyObject *number) {
    if (PyLong_CheckExact(number)) {
        char *text = PyMem_Malloc(32);
        if (text) snprintf(text, 32, "%lld", PyLong_AsLongLong(number)); /* within 53 bits: frames.py, Ping */
        return text;
    }
    double value = PyFloat_AsDouble(number), size = value < 0 ? -value : value;
    return size >= 1e-3 && size < 1e15 ? PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL) : NULL;
}

static int say_ping(Turn *t, PyObject *connection, PyObject *frame) {
    PyObject *at = get(frame, N.at), *c = at ? get(frame, N.c) : NULL, *wall = NULL;
    char *clock = c && at == Py_None ? number_of(c) : NULL, out[128];
    double now;
    int done = clock ? now_and_wall(t, &now, &wall) ? -1 : heard(t, SLOT(connection, Connection, session), now) : 0;
    if (done == 1) {
        int size = snprintf(out + 2, sizeof out - 2, "{\"t\":\"pong\",\"c\":%s,\"now\":%lld}", clock, PyLong_AsLongLong(wall));
        out[0] = (char)0x81; /* RFC 6455 §5.2: FIN, text, a length below 126 */
        out[1] = (char)size;
        done = write_out(t, connection, out, size + 2) ? -1 : 1;
    }
    Py_XDECREF(at);
    Py_XDECREF(c);
    Py_XDECREF(wall);
    PyMem_Free(clock);
    return PyErr_Occurred() ? -1 : done;
}

/* Whether a message may be a ping: acks and all else need not be decoded twice. */
static int may_be_ping(PyObject *text) {
    Py_ssize_t size = PyBytes_GET_SIZE(text);
    return memmem(PyBytes_AS_STRING(text), size < 20 ? (size_t)size : 20, "\"ping\"", 6) != NULL;
}

int message(Turn *t, PyObject *connection, Py_ssize_t size) {
    PyObject *phase = SLOT(SLOT(connection, Connection, session), ServerSession, phase), *frame = NULL;
    int greets = phase == t->opened;
    if ((!greets && phase != t->welcomed) || SLOT(connection, Connection, _reader) != Py_None) return 0;
    PyObject *text = text_of((const unsigned char *)t->data, size, (Py_ssize_t)t->message_bytes);
    int done = text ? 0 : -1;
    if (text && text != Py_None && (greets || may_be_ping(text))) {
        frame = decoded(t, text, greets ? t->hello : t->ping);
        done = frame == Py_None ? 0 : greets ? say_hello(t, connection, frame) : say_ping(t, connection, frame);
    }
    Py_XDECREF(text);
    Py_XDECREF(frame);
    return done;
}
