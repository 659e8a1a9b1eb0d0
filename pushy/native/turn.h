/* What the parts of a turn share: turn.c (the epoll set), upgrade.c (RFC 6455 §4), hello.c (what a session hears). */
#ifndef STAGECAST_TURN_H
#define STAGECAST_TURN_H
#include "hot.h"
#include "ring.h"

#define EVENTS_AT_ONCE 64
#define ACCEPTED_AT_ONCE 64
#define READ_BYTES (16 * 1024)
#define TEXTS_BYTES (64 * 1024)

/* Attributes of what Turn is made of (pushy/express.py, Parts): objects, and numbers. */
#define TURN_OBJECTS(X) \
    X(streams) X(all) X(listening) X(floor) X(reception) X(crowd) X(turnstile) X(by_member) X(by_device) X(changes) X(began) X(node) \
    X(note) X(remembered) X(revocations) X(wheel) X(slots) X(hub) X(events) X(apps) X(rules) X(monotonic) X(wall) X(admit) X(random) \
    X(sha1) X(sha256) X(decode) X(hello) X(ping) X(token_error) X(unauthorized) X(forbidden) X(opened) X(welcomed) X(nowhere) X(share) \
    X(opening) X(pings) X(maps)
#define TURN_NUMBERS(X) \
    X(epoll) X(batched) X(by_address) X(sessions_max) X(pending_max) X(held_max) X(tick) X(handshake_deadline) X(hello_deadline) \
    X(lifetime) X(lifetime_jitter) X(grace) X(refresh_ahead) X(message_cost) X(messages_window) X(message_bytes) X(silence)

#define DECLARE_OBJECT(name) PyObject *name;
#define DECLARE_NUMBER(name) double name;
typedef struct {
    PyObject_HEAD
    TURN_OBJECTS(DECLARE_OBJECT)
    PyObject *shapes, *nothing, *no_places;
    TURN_NUMBERS(DECLARE_NUMBER)
    char data[READ_BYTES];
    /* What is to be written before anybody else gets to write, and who finishes it. */
    struct ring *ring;
    struct part parts[BATCH];
    PyObject *writers[BATCH];
    int waiting, stuck[BATCH];
    long written;
    size_t used;
    char texts[TEXTS_BYTES];
} Turn;

/* Each returns 0, or -1 with an error set. `did` takes the reference of a call's result. */
int did(PyObject *result);
int now_and_wall(Turn *t, double *now, PyObject **wall);
int count(PyObject *object, PyObject *name, long more);
int wheel_put(Turn *t, PyObject *connection, double deadline);

/* Writes to a connection that has nothing unsent, before the turn is over; `write_now` is for before Python gets a connection. */
int write_out(Turn *t, PyObject *connection, const char *data, Py_ssize_t size);
int write_now(Turn *t);

/* Each does what `size` bytes of t->data mean: 1 if it did, 0 if it is not the usual case and nothing has happened, -1 with an error
 * set. */
int upgrade(Turn *t, PyObject *connection, Py_ssize_t size);
int message(Turn *t, PyObject *connection, Py_ssize_t size);

/* Remembers a request that was let in, so that others that differ by the key alone are the usual case. */
int learn(Turn *t, const char *request, Py_ssize_t size);
#endif
