/* One frame to many sockets. Both ways give how many did not take the whole frame; for the k-th of these, stuck[k] is its place in
 * `descriptors` and sent[k] how many bytes it took (0: its buffer is full), or a negative errno. They never block, never raise
 * SIGPIPE, keep nothing, and take at most BATCH descriptors. */
#ifndef STAGECAST_RING_H
#define STAGECAST_RING_H
#include <stddef.h>

#define BATCH 256 /* a power of two; with 64 half of the gain is lost */

struct ring;

/* NULL where the kernel has no io_uring, is older than 6.1 or does not allow it: errno says which. A ring belongs to the thread that
 * made it, and not to a process forked later. */
struct ring *ring_open(void);
void ring_close(struct ring *ring);

/* One system call for all. */
int send_batch(struct ring *ring, const int *descriptors, int count, const char *frame, size_t size, int *stuck, int *sent);

/* One system call each. */
int send_each(const int *descriptors, int count, const char *frame, size_t size, int *stuck, int *sent);
#endif
