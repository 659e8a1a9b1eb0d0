/* Frames to many sockets. Both ways give how many were not sent whole; for the k-th of these, stuck[k] is its place in `parts`, whose
 * `sent` is how many bytes went (0: the socket's buffer is full), or a negative errno. They never block, never raise SIGPIPE, keep
 * nothing, and take at most BATCH parts. */
#ifndef STAGECAST_RING_H
#define STAGECAST_RING_H
#include <stddef.h>

#define BATCH 256 /* a power of two; with 64 half of the gain is lost */

struct ring;

struct part {
    int descriptor, sent;
    const char *data;
    unsigned size;
};

/* NULL where the kernel has no io_uring, is older than 6.1 or does not allow it: errno says which. A ring belongs to the thread that
 * made it, and not to a process forked later. */
struct ring *ring_open(void);
void ring_close(struct ring *ring);

/* By one system call for all. */
int send_batch(struct ring *ring, struct part *parts, int count, int *stuck);

/* By one system call for each. */
int send_each(struct part *parts, int count, int *stuck);
#endif
