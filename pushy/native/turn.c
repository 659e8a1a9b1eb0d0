/* A worker's epoll set, looked at once: accepts, upgrades and hellos of the usual kind from here, all else by Python's objects.
 *
 * A device's way from its TCP connection to its welcome is some twenty calls in Python, each cheap and all of them together more
 * than what the kernel takes. Here they are one, on the same objects, with the same order of effects (pushy/streams.py,
 * connection.py, handshake.py, hub.py; stagecast/wire/server_session.py). Nothing is changed before it is sure that the case is the
 * usual one: until then Python can still take it, with all its bytes. */
#include "turn.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int did(PyObject *result) {
    Py_XDECREF(result);
    return result ? 0 : -1;
}

int now_and_wall(Turn *t, double *now, PyObject **wall) {
    PyObject *monotonic = PyObject_CallNoArgs(t->monotonic);
    *now = monotonic ? PyFloat_AsDouble(monotonic) : -1;
    Py_XDECREF(monotonic);
    if (!monotonic || (*now == -1 && PyErr_Occurred())) return -1;
    return !wall || (*wall = PyObject_CallNoArgs(t->wall)) ? 0 : -1;
}

int count(PyObject *object, PyObject *name, long more) {
    PyObject *before = get(object, name), *by = PyLong_FromLong(more), *after = NULL;
    if (before && by && (after = PyNumber_Add(before, by)) && PyObject_SetAttr(object, name, after)) Py_CLEAR(after);
    Py_XDECREF(before);
    Py_XDECREF(by);
    return did(after);
}

/* pushy/wheel.py, Wheel.put. */
int wheel_put(Turn *t, PyObject *connection, double deadline) {
    PyObject *turned = get(t->wheel, N._turned);
    if (!turned) return -1;
    long number = (long)(deadline / t->tick) + 1, next = PyLong_AsLong(turned) + 1;
    Py_DECREF(turned);
    if (number < next) number = next;
    PyObject *slot = SLOT(connection, Connection, slot);
    if (slot != Py_None) {
        if (PyLong_AsLong(SLOT(slot, Slot, number)) <= number) return 0;
        if (PySet_Discard(slot, connection) < 0) return -1;
    }
    PyObject *key = PyLong_FromLong(number);
    if (!key) return -1;
    slot = Py_XNewRef(PyDict_GetItemWithError(t->slots, key));
    if (!slot && !PyErr_Occurred()) {
        slot = PyObject_CallOneArg((PyObject *)Slot.type, key);
        if (slot && PyDict_SetItem(t->slots, key, slot)) Py_CLEAR(slot);
    }
    Py_DECREF(key);
    if (!slot || PySet_Add(slot, connection)) {
        Py_XDECREF(slot);
        return -1;
    }
    PUT(connection, Connection, slot, slot);
    return 0;
}

/* Says to Python what failed, in a stream's protocol or here; the stream is aborted. */
static int failed(Turn *t, PyObject *one) {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1; /* such as KeyboardInterrupt: not a protocol's affair */
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (write_now(t)) PyErr_Clear(); /* it has been said */
    if (trace) PyException_SetTraceback(value, trace);
    PyObject *done = PyObject_CallMethodObjArgs(t->streams, N.failed, one, value, NULL);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* pushy/connection.py, Connection.write, of what was not sent whole. */
static int see_to(PyObject *connection, const struct part *part) {
    PyObject *transport = SLOT(connection, Connection, transport);
    if (part->sent < 0) return did(call(transport, N.abort));
    PyObject *frame = PyBytes_FromStringAndSize(part->data, part->size), *sent = PyLong_FromLong(part->sent);
    PyObject *done = frame && sent ? PyObject_CallMethodObjArgs(connection, N.keep, frame, sent, NULL) : NULL;
    Py_XDECREF(frame);
    Py_XDECREF(sent);
    return did(done);
}

int write_now(Turn *t) {
    int waiting = t->waiting, done = 0;
    if (!waiting) return 0;
    long written = t->written;
    t->waiting = 0;
    t->written = 0;
    t->used = 0;
    int found = t->ring ? send_batch(t->ring, t->parts, waiting, t->stuck) : send_each(t->parts, waiting, t->stuck);
    for (int k = 0; k < found; k++) {
        PyObject *connection = t->writers[t->stuck[k]];
        if (see_to(connection, &t->parts[t->stuck[k]]) && failed(t, SLOT(connection, Connection, transport))) done = -1;
    }
    for (int i = 0; i < waiting; i++) Py_DECREF(t->writers[i]);
    return done || count(t->floor, N.sent, written) ? -1 : 0;
}

int write_out(Turn *t, PyObject *connection, const char *data, Py_ssize_t size) {
    PyObject *transport = SLOT(connection, Connection, transport);
    if (SLOT(transport, Stream, _closing) == Py_True) return 0;
    if ((t->waiting == BATCH || t->used + (size_t)size > TEXTS_BYTES) && write_now(t)) return -1;
    struct part *part = &t->parts[t->waiting];
    part->descriptor = (int)PyLong_AsLong(SLOT(transport, Stream, descriptor));
    part->data = memcpy(t->texts + t->used, data, (size_t)size);
    part->size = (unsigned)size;
    t->writers[t->waiting++] = Py_NewRef(connection);
    t->used += (size_t)size;
    t->written += size;
    return 0;
}

static int took(Turn *t, PyObject *stream, Py_ssize_t size) {
    PyObject *protocol = Py_NewRef(SLOT(stream, Stream, _protocol));
    int done = 0;
    if (IS(protocol, Connection)) {
        long phase = PyLong_AsLong(SLOT(protocol, Connection, phase));
        done = phase == 0 ? upgrade(t, protocol, size) : phase == 1 ? message(t, protocol, size) : 0;
    }
    if (!done) {
        PyObject *data = PyBytes_FromStringAndSize(t->data, size);
        done = data && !write_now(t) ? did(call_with(protocol, N.data_received, data)) : -1;
        Py_XDECREF(data);
    }
    Py_DECREF(protocol);
    return done < 0 ? -1 : 0;
}

/* pushy/streams.py, Stream._read. */
static int read_some(Turn *t, PyObject *stream) {
    long descriptor = PyLong_AsLong(SLOT(stream, Stream, _socket));
    ssize_t size;
    do
        size = recv((int)descriptor, t->data, sizeof t->data, MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    if (size > 0) return took(t, stream, size);
    if (size == 0) return write_now(t) ? -1 : did(call(stream, N.ended));
    if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
    PyObject *number = PyLong_FromLong(errno), *why = number ? PyObject_CallOneArg(PyExc_OSError, number) : NULL;
    int done = why && !write_now(t) ? did(call_with(stream, N.lose, why)) : -1;
    Py_XDECREF(number);
    Py_XDECREF(why);
    return done;
}

/* Whether a stream has nothing to write and is read: then what epoll says of it can only be that it is to be read. */
static int plain(PyObject *stream) {
    return SLOT(stream, Stream, _unsent) == Py_None && SLOT(stream, Stream, _lost) == Py_False &&
           SLOT(stream, Stream, _closing) == Py_False && PyLong_AsLong(SLOT(stream, Stream, _watched)) == EPOLLIN;
}

static PyObject *new_stream(Turn *t, int descriptor, PyObject *connection) {
    PyObject *number = PyLong_FromLong(descriptor), *stream = number ? made(Stream.type) : NULL;
    if (stream) {
        PUT(stream, Stream, _streams, Py_NewRef(t->streams));
        PUT(stream, Stream, _protocol, Py_NewRef(connection));
        PUT(stream, Stream, _socket, Py_NewRef(number));
        PUT(stream, Stream, descriptor, Py_NewRef(number));
        PUT(stream, Stream, _watched, PyLong_FromLong(EPOLLIN));
        PUT(stream, Stream, _unsent, Py_NewRef(Py_None));
        PUT(stream, Stream, _closing, Py_NewRef(Py_False));
        PUT(stream, Stream, _eof, Py_NewRef(Py_False));
        PUT(stream, Stream, _lost, Py_NewRef(Py_False));
    }
    Py_XDECREF(number);
    return stream;
}

static PyObject *new_connection(Turn *t) {
    PyObject *connection = made(Connection.type);
    if (connection) {
        PUT(connection, Connection, _floor, Py_NewRef(t->floor));
        PUT(connection, Connection, _head, Py_NewRef(t->nothing));
        PUT(connection, Connection, _reader, Py_NewRef(Py_None));
        PUT(connection, Connection, _stall, Py_NewRef(Py_None));
        PUT(connection, Connection, address, Py_NewRef(Py_None));
        PUT(connection, Connection, phase, PyLong_FromLong(0));
        PUT(connection, Connection, places, Py_NewRef(t->no_places));
        PUT(connection, Connection, proxied, Py_NewRef(Py_False));
        PUT(connection, Connection, slot, Py_NewRef(Py_None));
        PUT(connection, Connection, unsent, Py_NewRef(Py_False));
    }
    return connection;
}

static int watch(Turn *t, int descriptor, PyObject *stream) {
    if (descriptor < PyList_GET_SIZE(t->all)) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
        if (!epoll_ctl((int)t->epoll, EPOLL_CTL_ADD, descriptor, &event)) return PyList_SetItem(t->all, descriptor, Py_NewRef(stream));
    }
    PyObject *done = PyObject_CallMethod(t->streams, "watch", "iOi", descriptor, stream, EPOLLIN);
    return did(done);
}

/* pushy/limits.py, Crowd.arrived where addresses don't count and there is room: 1 if it is counted, 0 if not, -1 with an error set. */
static int counted_in(Turn *t) {
    if (t->by_address) return 0;
    PyObject *tcp = get(t->crowd, N.tcp), *more;
    long here = tcp ? PyLong_AsLong(tcp) : -1;
    Py_XDECREF(tcp);
    if (PyErr_Occurred()) return -1;
    if (here >= t->sessions_max + t->pending_max) return 0;
    int done = (more = PyLong_FromLong(here + 1)) ? PyObject_SetAttr(t->crowd, N.tcp, more) : -1;
    Py_XDECREF(more);
    return done ? -1 : 1;
}

/* pushy/connection.py, Connection.connection_made. */
static int arrived(Turn *t, PyObject *connection) {
    int keep = counted_in(t);
    if (keep == 0) {
        PyObject *kept = call_with(t->reception, N.arrived, connection);
        keep = kept ? PyObject_IsTrue(kept) : -1;
        Py_XDECREF(kept);
        if (keep == 0) return did(call(SLOT(connection, Connection, transport), N.abort));
    }
    if (keep < 0) return -1;
    double now;
    return now_and_wall(t, &now, NULL) ? -1 : wheel_put(t, connection, now + t->handshake_deadline);
}

/* pushy/streams.py, Listening.ready for one connection; what it has sent already is read at once. */
static int take(Turn *t, int descriptor) {
    PyObject *connection = new_connection(t), *stream = connection ? new_stream(t, descriptor, connection) : NULL;
    int done = -1;
    if (stream) PUT(connection, Connection, transport, Py_NewRef(stream));
    if (!stream || watch(t, descriptor, stream)) {
        close(descriptor);
    } else {
        done = arrived(t, connection) || (plain(stream) && read_some(t, stream)) ? -1 : 0;
        if (done) done = failed(t, stream);
    }
    Py_XDECREF(connection);
    Py_XDECREF(stream);
    return done;
}

static int accept_some(Turn *t, PyObject *listening) {
    PyObject *number = get(listening, N.descriptor);
    long descriptor = number ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    if (descriptor == -1 && PyErr_Occurred()) return -1;
    for (int i = 0; i < ACCEPTED_AT_ONCE; i++) {
        int made = accept4((int)descriptor, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (made >= 0) {
            if (take(t, made)) return -1;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return 0;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            return did(call(listening, N.pause));
        } /* else it is of the connection that was to be accepted, not of this socket (accept(2), "Error handling") */
    }
    return 0;
}

/* What epoll says of one descriptor. An event may be older than its descriptor, when that was closed and given out again in this very
 * turn: whatever is told is tried, and EAGAIN is no news. */
static int look_at(Turn *t, int descriptor, unsigned events, int accepting) {
    if (descriptor >= PyList_GET_SIZE(t->all)) return 0;
    PyObject *one = Py_NewRef(PyList_GET_ITEM(t->all, descriptor));
    int done = 0, listens = Py_TYPE(one) == (PyTypeObject *)t->listening;
    if (one == Py_None || listens != accepting) {
        done = 0;
    } else if (listens) {
        done = accept_some(t, one);
    } else if (IS(one, Stream) && events == EPOLLIN && plain(one)) {
        done = read_some(t, one);
    } else {
        PyObject *what = PyLong_FromUnsignedLong(events);
        done = what && !write_now(t) ? did(call_with(one, N.ready, what)) : -1;
        Py_XDECREF(what);
    }
    if (done) done = failed(t, one);
    Py_DECREF(one);
    return done;
}

static PyObject *turn_ready(PyObject *self, PyObject *Py_UNUSED(none)) {
    Turn *t = (Turn *)self;
    struct epoll_event events[EVENTS_AT_ONCE];
    int found = epoll_wait(t->epoll, events, EVENTS_AT_ONCE, 0);
    for (int accepting = 0; accepting < 2; accepting++) /* ends before beginnings: who comes again is not one too many */
        for (int i = 0; i < found; i++)
            if (look_at(t, events[i].data.fd, events[i].events, accepting)) return NULL;
    return write_now(t) ? NULL : Py_NewRef(Py_None);
}

static PyObject *turn_learn(PyObject *self, PyObject *request) {
    Turn *t = (Turn *)self;
    if (!PyBytes_Check(request)) return PyErr_Format(PyExc_TypeError, "the request's bytes are expected");
    return learn(t, PyBytes_AS_STRING(request), PyBytes_GET_SIZE(request)) ? NULL : Py_NewRef(Py_None);
}

static int set_number(PyObject *given, const char *name, double *number) {
    PyObject *found = PyObject_GetAttrString(given, name);
    *number = found ? PyFloat_AsDouble(found) : -1;
    Py_XDECREF(found);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *turn_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *given;
    if (!PyArg_ParseTuple(args, "O:Turn", &given)) return NULL;
    if (keywords && PyDict_GET_SIZE(keywords)) return PyErr_Format(PyExc_TypeError, "no keywords are expected");
    Turn *t = (Turn *)type->tp_alloc(type, 0);
    if (!t) return NULL;
#define TAKE_OBJECT(name) \
    if (!(t->name = PyObject_GetAttrString(given, #name))) { \
        Py_DECREF(t); \
        return NULL; \
    }
    TURN_OBJECTS(TAKE_OBJECT)
    t->shapes = PyDict_New();
    t->nothing = PyBytes_FromStringAndSize(NULL, 0);
    t->no_places = PyTuple_New(0);
#define TAKE_NUMBER(name) || set_number(given, #name, &t->name)
    if (!t->shapes || !t->nothing || !t->no_places TURN_NUMBERS(TAKE_NUMBER)) {
        Py_DECREF(t);
        return NULL;
    }
    if (t->batched) t->ring = ring_open(); /* where that is not allowed, each write is a call of its own */
    if (!PyDict_Check(t->by_member) || !PyDict_Check(t->by_device) || !PyList_Check(t->changes) || !PyDict_Check(t->remembered) ||
        !PyDict_Check(t->revocations) || !PyUnicode_Check(t->node) || !PyList_Check(t->all) || !PyDict_Check(t->slots) || !PyDict_Check(t->events) || !PyDict_Check(t->apps) ||
        !PyBytes_Check(t->opening) || !PyBytes_Check(t->pings) || !PyBytes_Check(t->maps)) {
        Py_DECREF(t);
        return PyErr_Format(PyExc_TypeError, "a part of Turn is of another type than it was");
    }
    return (PyObject *)t;
}

static int turn_traverse(PyObject *self, visitproc visit, void *arg) {
    Turn *t = (Turn *)self;
    Py_VISIT(Py_TYPE(self));
#define VISIT(name) Py_VISIT(t->name);
    TURN_OBJECTS(VISIT)
    return 0;
}

static int turn_clear(PyObject *self) {
    Turn *t = (Turn *)self;
#define CLEAR(name) Py_CLEAR(t->name);
    TURN_OBJECTS(CLEAR)
    CLEAR(shapes) CLEAR(nothing) CLEAR(no_places)
    while (t->waiting) Py_DECREF(t->writers[--t->waiting]);
    return 0;
}

static void turn_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    turn_clear(self);
    ring_close(((Turn *)self)->ring);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef turn_methods[] = {
    {"ready", turn_ready, METH_NOARGS, NULL},
    {"learn", turn_learn, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot turn_slots[] = {
    {Py_tp_new, turn_new}, {Py_tp_traverse, turn_traverse}, {Py_tp_clear, turn_clear},
    {Py_tp_dealloc, turn_dealloc}, {Py_tp_methods, turn_methods}, {0, NULL},
};

PyType_Spec turn_spec = {"_hot.Turn", sizeof(Turn), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, turn_slots};
