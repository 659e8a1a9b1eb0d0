/* One frame to many places, in one call: what pushy/fanout.py does in Python, a system call after the other with little between. */
#include "hot.h"
#include "ring.h"
#include <errno.h>
#include <stdint.h>

/* Places whose parts are fetched ahead: each is three objects deep, and sending leaves nothing of them in the caches. */
#define AHEAD 4

typedef struct {
    PyObject_HEAD
    struct ring *ring; /* NULL: a system call for each */
    PyObject *places[BATCH];
    struct part parts[BATCH];
    int stuck[BATCH];
} Loops;

static PyObject *slot_or_attribute(PyObject *object, int known, Py_ssize_t offset, PyObject *name) {
    return known ? Py_XNewRef(*(PyObject **)((char *)object + offset)) : get(object, name);
}

static PyObject *transport_of(PyObject *outlet) {
    return slot_or_attribute(outlet, IS(outlet, Connection), Connection.transport, N.transport);
}

/* The descriptor to write to; -1 if it is closing, or with an error set. */
static int descriptor_of(PyObject *outlet) {
    PyObject *transport = transport_of(outlet), *number = NULL;
    if (transport) number = slot_or_attribute(transport, IS(transport, Stream), Stream.descriptor, N.descriptor);
    long found = number ? PyLong_AsLong(number) : -1;
    Py_XDECREF(transport);
    Py_XDECREF(number);
    return (int)found;
}

static int unsent(PyObject *outlet) {
    PyObject *found = slot_or_attribute(outlet, IS(outlet, Connection), Connection.unsent, N.unsent);
    int result = found ? PyObject_IsTrue(found) : -1;
    Py_XDECREF(found);
    return result;
}

static void fetch_ahead(PyObject **places, Py_ssize_t i, Py_ssize_t count) {
    if (i + 2 * AHEAD < count) __builtin_prefetch(places[i + 2 * AHEAD]);
    if (i + AHEAD < count) {
        PyObject *outlet = SLOT(places[i + AHEAD], Place, outlet);
        __builtin_prefetch(outlet);
        __builtin_prefetch((char *)outlet + 64);
    }
    if (i + AHEAD / 2 < count) {
        PyObject *outlet = SLOT(places[i + AHEAD / 2], Place, outlet);
        if (IS(outlet, Connection)) __builtin_prefetch(SLOT(outlet, Connection, transport));
    }
}

/* What became of a frame that did not all go: 1 if the outlet has seen to it at once, 0 if it waits or is closing, -1 with an error
 * set. */
static int see_to(PyObject *outlet, PyObject *frame, int descriptor, int sent) {
    if (sent >= 0) {
        PyObject *part = PyLong_FromLong(sent), *done = part ? PyObject_CallMethodObjArgs(outlet, N.keep, frame, part, NULL) : NULL;
        int result = done ? PyObject_IsTrue(done) : -1;
        Py_XDECREF(part);
        Py_XDECREF(done);
        return result;
    }
    if (descriptor < 0) return 0;
    PyObject *transport = transport_of(outlet), *done = transport ? call(transport, N.abort) : NULL;
    Py_XDECREF(transport);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* Keeps the first error of several: what comes after it still has to be seen to. */
static void keep_error(PyObject *error[3]) {
    if (error[0])
        PyErr_Clear();
    else
        PyErr_Fetch(&error[0], &error[1], &error[2]);
}

/* Sends to the `count` places that have been gathered; those that are stuck go into the list. Whatever fails for one of them, all are
 * seen to: a frame that has begun and is not finished would break its stream. */
static int flush(Loops *l, int count, PyObject *frame, PyObject *stuck) {
    int found = l->ring ? send_batch(l->ring, l->parts, count, l->stuck) : send_each(l->parts, count, l->stuck);
    PyObject *error[3] = {NULL, NULL, NULL};
    for (int k = 0; k < found; k++) {
        PyObject *place = l->places[l->stuck[k]], *outlet = SLOT(place, Place, outlet);
        const struct part *part = &l->parts[l->stuck[k]];
        int whole = see_to(outlet, frame, part->descriptor, part->sent);
        if (whole < 0) {
            keep_error(error);
            if (see_to(outlet, frame, 0, -1) < 0) keep_error(error);
        }
        if (whole <= 0 && PyList_Append(stuck, place)) keep_error(error);
    }
    if (!error[0]) return 0;
    PyErr_Restore(error[0], error[1], error[2]);
    return -1;
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

/* Marks a place as given `order`: 1 if it is to be written to, 0 if it has been or is owed it now, -1 with an error set. */
static int is_due(PyObject *place, PyObject *order, PyObject *owed) {
    if (SLOT(place, Place, sent) == order) return 0;
    PUT(place, Place, sent, Py_NewRef(order));
    int waits = unsent(SLOT(place, Place, outlet));
    if (waits <= 0) return waits + 1 ? 1 : -1;
    PyObject *owes = PyNumber_Or(SLOT(place, Place, owes), owed);
    if (!owes) return -1;
    PUT(place, Place, owes, owes);
    return 0;
}

/* Writes to all places, or if there is an order to those that are due: how many, -1 with an error set. */
static Py_ssize_t write_to(Loops *l, PyObject *frame, PyObject *list, PyObject *order, PyObject *owed, PyObject *stuck) {
    Py_ssize_t count = PyList_GET_SIZE(list), written = 0;
    PyObject **places = ((PyListObject *)list)->ob_item;
    int gathered = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        fetch_ahead(places, i, count);
        int due = order ? is_due(places[i], order, owed) : 1;
        if (due < 0) break;
        if (due) {
            struct part *part = &l->parts[gathered];
            l->places[gathered++] = places[i];
            part->descriptor = descriptor_of(SLOT(places[i], Place, outlet));
            part->data = PyBytes_AS_STRING(frame);
            part->size = (unsigned)PyBytes_GET_SIZE(frame);
            if (part->descriptor < 0 && PyErr_Occurred()) break;
        }
        if (gathered == BATCH) {
            if (flush(l, gathered, frame, stuck)) return -1;
            written += gathered;
            gathered = 0;
        }
    }
    PyObject *error[3] = {NULL, NULL, NULL}; /* of one of them: the others have been marked, and are written to */
    if (PyErr_Occurred()) keep_error(error);
    if (gathered && flush(l, gathered, frame, stuck)) keep_error(error);
    if (!error[0]) return written + gathered;
    PyErr_Restore(error[0], error[1], error[2]);
    return -1;
}

/* write_all(frame, places) -> stuck */
static PyObject *loops_write_all(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) return PyErr_Format(PyExc_TypeError, "a frame and places are expected");
    if (!right(args[0], args[1])) return NULL;
    PyObject *stuck = PyList_New(0);
    if (stuck && write_to((Loops *)self, args[0], args[1], NULL, NULL, stuck) < 0) Py_CLEAR(stuck);
    return stuck;
}

/* give(frame, places, order, owed) -> (written, stuck): to those that have not been given `order` and have nothing unsent; the others
 * get the bits `owed`. */
static PyObject *loops_give(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 4) return PyErr_Format(PyExc_TypeError, "a frame, places, an order and bits are expected");
    if (!right(args[0], args[1])) return NULL;
    PyObject *stuck = PyList_New(0);
    Py_ssize_t written = stuck ? write_to((Loops *)self, args[0], args[1], args[2], args[3], stuck) : -1;
    if (written >= 0) return Py_BuildValue("(nN)", written, stuck);
    Py_XDECREF(stuck);
    return NULL;
}

static uint32_t hashed(uint32_t h, const char *text, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size; i++) h = (h ^ (uint8_t)text[i]) * 0x01000193u;
    return h;
}

/* asked(devices, gen, seq, p) -> how many of `devices` have an ack_hash (stagecast/wire/sampling.py) below p */
static PyObject *loops_asked(PyObject *Py_UNUSED(self), PyObject *args) {
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

/* Loops(batched): OSError if that is wished for and the kernel does not allow it. */
static PyObject *loops_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords)) {
    int batched;
    if (!PyArg_ParseTuple(args, "p:Loops", &batched)) return NULL;
    Loops *l = (Loops *)type->tp_alloc(type, 0);
    if (l && batched && !(l->ring = ring_open())) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(l);
    }
    return (PyObject *)l;
}

static void loops_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    ring_close(((Loops *)self)->ring);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef loops_methods[] = {
    {"write_all", (PyCFunction)(void (*)(void))loops_write_all, METH_FASTCALL, NULL},
    {"give", (PyCFunction)(void (*)(void))loops_give, METH_FASTCALL, NULL},
    {"asked", loops_asked, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loops_slots[] = {
    {Py_tp_new, loops_new}, {Py_tp_dealloc, loops_dealloc}, {Py_tp_methods, loops_methods}, {0, NULL},
};

PyType_Spec loops_spec = {"_hot.Loops", sizeof(Loops), 0, Py_TPFLAGS_DEFAULT, loops_slots};
