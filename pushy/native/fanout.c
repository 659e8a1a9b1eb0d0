/* One frame to many places, in one call: what pushy/fanout.py does in Python, a system call after the other with little between. */
#include "hot.h"
#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>

/* Places whose parts are fetched ahead: each is three objects deep, and send() leaves nothing of them in the caches. */
#define AHEAD 4

static PyObject *slot_or_attribute(PyObject *object, int known, Py_ssize_t offset, PyObject *name) {
    return known ? Py_XNewRef(*(PyObject **)((char *)object + offset)) : get(object, name);
}

static PyObject *transport_of(PyObject *outlet) {
    return slot_or_attribute(outlet, IS(outlet, Connection), Connection.transport, N.transport);
}

/* The descriptor to write to, -1 if it is closing, -2 with an error set. */
static int descriptor_of(PyObject *transport) {
    PyObject *number = slot_or_attribute(transport, IS(transport, Stream), Stream.descriptor, N.descriptor);
    if (!number) return -2;
    long found = PyLong_AsLong(number);
    Py_DECREF(number);
    return found == -1 && PyErr_Occurred() ? -2 : found < 0 ? -1 : (int)found;
}

static void fetch_ahead(PyObject **places, Py_ssize_t i, Py_ssize_t count) {
    if (i + 2 * AHEAD < count) __builtin_prefetch(places[i + 2 * AHEAD]);
    if (i + AHEAD < count && IS(places[i + AHEAD], Place)) {
        PyObject *outlet = SLOT(places[i + AHEAD], Place, outlet);
        __builtin_prefetch(outlet);
        __builtin_prefetch((char *)outlet + 64);
    }
    if (i + AHEAD / 2 < count && IS(places[i + AHEAD / 2], Place)) {
        PyObject *outlet = SLOT(places[i + AHEAD / 2], Place, outlet);
        if (outlet && IS(outlet, Connection)) __builtin_prefetch(SLOT(outlet, Connection, transport));
    }
}

/* Offers the frame to one outlet: 1 if all of it went, 0 if not (then the outlet finishes it, or is closing), -1 with an error set. */
static int offer(PyObject *outlet, PyObject *frame) {
    PyObject *transport = transport_of(outlet), *done;
    if (!transport) return -1;
    int result = 0, descriptor = descriptor_of(transport);
    if (descriptor == -2) result = -1;
    if (descriptor >= 0) {
        ssize_t size = PyBytes_GET_SIZE(frame), sent;
        do
            sent = send(descriptor, PyBytes_AS_STRING(frame), (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
        if (sent == size) {
            result = 1;
        } else if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            result = (done = call(transport, N.abort)) ? 0 : -1;
            Py_XDECREF(done);
        } else {
            PyObject *part = PyLong_FromSsize_t(sent < 0 ? 0 : sent);
            done = part ? PyObject_CallMethodObjArgs(outlet, N.keep, frame, part, NULL) : NULL;
            result = done ? PyObject_IsTrue(done) : -1;
            Py_XDECREF(done);
            Py_XDECREF(part);
        }
    }
    Py_DECREF(transport);
    return result;
}

static int offer_place(PyObject *place, PyObject *frame, PyObject *stuck) {
    PyObject *outlet = Py_NewRef(SLOT(place, Place, outlet));
    int whole = offer(outlet, frame);
    Py_DECREF(outlet);
    return whole == 0 ? PyList_Append(stuck, place) : whole < 0 ? -1 : 0;
}

static int right(PyObject *frame, PyObject *places) {
    if (!PyBytes_Check(frame) || !PyList_Check(places)) {
        PyErr_SetString(PyExc_TypeError, "a frame of bytes and a list of places are expected");
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(places); i++)
        if (!IS(PyList_GET_ITEM(places, i), Place)) {
            PyErr_SetString(PyExc_TypeError, "not a Place");
            return 0;
        }
    return 1;
}

/* write_all(frame, places) -> stuck */
PyObject *hot_write_all(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !right(args[0], args[1])) return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "two arguments");
    PyObject *stuck = PyList_New(0);
    for (Py_ssize_t i = 0; stuck && i < PyList_GET_SIZE(args[1]); i++) {
        PyObject **places = ((PyListObject *)args[1])->ob_item;
        fetch_ahead(places, i, PyList_GET_SIZE(args[1]));
        if (offer_place(places[i], args[0], stuck)) Py_CLEAR(stuck);
    }
    return stuck;
}

static int unsent(PyObject *outlet) {
    PyObject *found = slot_or_attribute(outlet, IS(outlet, Connection), Connection.unsent, N.unsent);
    int result = found ? PyObject_IsTrue(found) : -1;
    Py_XDECREF(found);
    return result;
}

/* give(frame, places, order, owed) -> (ready, stuck): write_all to those that have not been given `order` and have nothing unsent;
 * `owed` is set in `owes` of the others. */
PyObject *hot_give(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 4 || !right(args[0], args[1])) return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "four arguments");
    PyObject *order = args[2], *stuck = PyList_New(0);
    Py_ssize_t ready = 0;
    for (Py_ssize_t i = 0; stuck && i < PyList_GET_SIZE(args[1]); i++) {
        PyObject **places = ((PyListObject *)args[1])->ob_item, *place = places[i];
        fetch_ahead(places, i, PyList_GET_SIZE(args[1]));
        if (SLOT(place, Place, sent) == order) continue;
        PUT(place, Place, sent, Py_NewRef(order));
        int waits = unsent(SLOT(place, Place, outlet));
        if (waits == 0) {
            ready++;
            if (offer_place(place, args[0], stuck)) Py_CLEAR(stuck);
            continue;
        }
        PyObject *owes = waits > 0 ? PyNumber_Or(SLOT(place, Place, owes), args[3]) : NULL;
        if (owes)
            PUT(place, Place, owes, owes);
        else
            Py_CLEAR(stuck);
    }
    return stuck ? Py_BuildValue("(nN)", ready, stuck) : NULL;
}

static uint32_t hashed(uint32_t h, const char *text, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size; i++) h = (h ^ (uint8_t)text[i]) * 0x01000193u;
    return h;
}

/* asked(devices, gen, seq, p) -> how many of `devices` have an ack_hash (stagecast/wire/sampling.py) below p */
PyObject *hot_asked(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *devices;
    long long gen, seq, p;
    if (!PyArg_ParseTuple(args, "O!LLL", &PyList_Type, &devices, &gen, &seq, &p)) return NULL;
    char rest[64];
    int size = snprintf(rest, sizeof rest, "|%lld|%lld", gen, seq);
    Py_ssize_t asked = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(devices); i++) {
        Py_ssize_t length;
        const char *device = PyUnicode_AsUTF8AndSize(PyList_GET_ITEM(devices, i), &length);
        if (!device) return NULL;
        uint32_t h = hashed(hashed(0x811C9DC5u, device, length), rest, size);
        h = (h ^ h >> 16) * 0x85EBCA6Bu;
        h = (h ^ h >> 13) * 0xC2B2AE35u;
        asked += (h ^ h >> 16) < p;
    }
    return PyLong_FromSsize_t(asked);
}
