/* What the parts of the native path share: where Python's classes keep their slots, and short words for using them.
 *
 * The objects are those of the Python path, made and changed in the same order: whatever is not the usual case is left to it. So
 * nothing here is a second truth, and a connection may go from one to the other with every message. */
#ifndef STAGECAST_HOT_H
#define STAGECAST_HOT_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#ifdef Py_GIL_DISABLED
#error "the native path needs the interpreter lock: the Python path serves here"
#endif

/* Classes with __slots__, and the slots of each that are used here. */
#define STREAM_SLOTS(X) X(_streams) X(_protocol) X(_socket) X(descriptor) X(_watched) X(_unsent) X(_closing) X(_eof) X(_lost)
#define CONNECTION_SLOTS(X) \
    X(_floor) X(_head) X(_reader) X(_stall) X(address) X(phase) X(places) X(proxied) X(session) X(slot) X(transport) X(unsent)
#define SESSION_SLOTS(X) \
    X(_rules) X(_number) X(_heard) X(_bucket) X(_ends) X(_expires) X(_pending) X(phase) X(claims) X(app) X(events) X(start)
#define PLACE_SLOTS(X) X(acked) X(app) X(at) X(event) X(index) X(map) X(outlet) X(owes) X(sent)
#define FOLLOWED_SLOTS(X) X(order) X(welcome) X(places) X(waiters) X(idle) X(states) X(hints) X(orders) X(maps)
#define LANE_SLOTS(X) X(left)
#define SLOT_SLOTS(X) X(number)
#define TURNSTILE_SLOTS(X) X(_rate) X(_burst) X(_free) X(_at)

#define CLASSES(X) \
    X(Stream, STREAM_SLOTS) X(Connection, CONNECTION_SLOTS) X(ServerSession, SESSION_SLOTS) X(Place, PLACE_SLOTS) \
    X(Followed, FOLLOWED_SLOTS) X(Lane, LANE_SLOTS) X(Slot, SLOT_SLOTS) X(Turnstile, TURNSTILE_SLOTS)

#define DECLARE_SLOT(name) Py_ssize_t name;
#define DECLARE_CLASS(name, slots) extern struct name##_slots { PyTypeObject *type; slots(DECLARE_SLOT) } name;
CLASSES(DECLARE_CLASS)
#undef DECLARE_CLASS

/* A slot as an lvalue: a reference that the object owns, or NULL. */
#define SLOT(object, class, name) (*(PyObject **)((char *)(object) + (class).name))
#define IS(object, class) (Py_TYPE(object) == (class).type)

/* Puts `value`, whose reference it takes, into a slot. */
static inline void put(PyObject **slot, PyObject *value) {
    PyObject *before = *slot;
    *slot = value;
    Py_XDECREF(before);
}
#define PUT(object, class, name, value) put(&SLOT(object, class, name), (value))

/* An object of a class as __new__ makes it: all slots empty. */
static inline PyObject *made(PyTypeObject *type) { return type->tp_alloc(type, 0); }

/* Names of attributes and methods, interned once. */
#define NAMES(X) \
    X(_label) X(_turned) X(abort) X(accepts) X(admitted) X(ahead) X(allows) X(app) X(arrived) X(at) X(back) X(c) X(busy) \
    X(data_received) X(descriptor) X(dev) X(device) X(digest) X(e) X(end) X(ended) X(evt) X(exp) X(failed) X(gen) X(greeted) \
    X(keep) X(leaving) X(lose) X(map) X(name) X(pause) X(ready) X(refuse) X(sent) X(seq) X(sub) X(tcp) X(token) \
    X(transport) X(unsent) X(upgraded)
#define DECLARE_NAME(name) PyObject *name;
extern struct names { NAMES(DECLARE_NAME) } N;

static inline PyObject *get(PyObject *object, PyObject *name) { return PyObject_GetAttr(object, name); }
static inline PyObject *call(PyObject *object, PyObject *method) { return PyObject_CallMethodNoArgs(object, method); }
static inline PyObject *call_with(PyObject *object, PyObject *method, PyObject *one) {
    return PyObject_CallMethodOneArg(object, method, one);
}

/* fanout.c: the type of what writes to very many places. */
extern PyType_Spec loops_spec;

/* turn.c: the type of what turns a worker's epoll set. */
extern PyType_Spec turn_spec;
#endif
