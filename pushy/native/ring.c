/* send() to many sockets by io_uring(7): the boundary between program and kernel is crossed once for 256 of them.
 *
 * MSG_DONTWAIT makes every request end within io_uring_enter(): nothing is armed, no worker is started, and the frame and the
 * descriptors may go once the call is back. MSG_WAITALL makes a partly sent frame a failure with the count of its bytes; without
 * it IOSQE_CQE_SKIP_SUCCESS would swallow it. So there is a completion for those only that did not take the whole frame, one each,
 * in order: they can't overflow a queue twice as long. */
#define _GNU_SOURCE
#include "ring.h"
#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef IORING_SETUP_DEFER_TASKRUN
struct ring {
    int fd;
    unsigned *sq_tail, *sq_array, sq_mask, *cq_head, *cq_tail, cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    void *rings;
    size_t rings_size, sqes_size;
};

void ring_close(struct ring *r) {
    if (!r) return;
    if (r->sqes) munmap(r->sqes, r->sqes_size);
    if (r->rings) munmap(r->rings, r->rings_size);
    if (r->fd >= 0) close(r->fd);
    free(r);
}

static int mapped(struct ring *r, const struct io_uring_params *p) {
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(unsigned), cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    r->rings_size = sq > cq ? sq : cq;
    r->sqes_size = p->sq_entries * sizeof(struct io_uring_sqe);
    void *rings = mmap(NULL, r->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
    void *sqes = mmap(NULL, r->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
    r->rings = rings == MAP_FAILED ? NULL : rings;
    r->sqes = sqes == MAP_FAILED ? NULL : sqes;
    if (!r->rings || !r->sqes) return 0;
    char *at = rings;
    r->sq_tail = (unsigned *)(at + p->sq_off.tail);
    r->sq_array = (unsigned *)(at + p->sq_off.array);
    r->sq_mask = *(unsigned *)(at + p->sq_off.ring_mask);
    r->cq_head = (unsigned *)(at + p->cq_off.head);
    r->cq_tail = (unsigned *)(at + p->cq_off.tail);
    r->cq_mask = *(unsigned *)(at + p->cq_off.ring_mask);
    r->cqes = (struct io_uring_cqe *)(at + p->cq_off.cqes);
    return 1;
}

struct ring *ring_open(void) {
    struct ring *r = calloc(1, sizeof *r);
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL};
    if (!r) return NULL;
    r->fd = (int)syscall(SYS_io_uring_setup, BATCH, &p);
    if (r->fd < 0 || !(p.features & IORING_FEAT_SINGLE_MMAP) || !(p.features & IORING_FEAT_CQE_SKIP) || !mapped(r, &p)) {
        int why = r->fd < 0 ? errno : ENOSYS;
        ring_close(r);
        errno = why;
        return NULL;
    }
    for (unsigned i = 0; i < BATCH; i++) { /* what never changes */
        r->sq_array[i] = i;
        memset(&r->sqes[i], 0, sizeof r->sqes[i]);
        r->sqes[i].opcode = IORING_OP_SEND;
        r->sqes[i].flags = IOSQE_CQE_SKIP_SUCCESS;
        r->sqes[i].msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_WAITALL;
    }
    return r;
}

static int failures(struct ring *r, struct part *parts, int *stuck) {
    unsigned head = *r->cq_head, tail = __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE);
    int found = 0;
    for (; head != tail; head++) {
        const struct io_uring_cqe *c = &r->cqes[head & r->cq_mask];
        parts[c->user_data].sent = c->res == -EAGAIN ? 0 : c->res;
        stuck[found++] = (int)c->user_data;
    }
    __atomic_store_n(r->cq_head, head, __ATOMIC_RELEASE);
    return found;
}

int send_batch(struct ring *r, struct part *parts, int count, int *stuck) {
    unsigned tail = *r->sq_tail;
    for (int i = 0; i < count; i++) {
        struct io_uring_sqe *s = &r->sqes[(tail + (unsigned)i) & r->sq_mask];
        s->fd = parts[i].descriptor;
        s->addr = (uint64_t)(uintptr_t)parts[i].data;
        s->len = parts[i].size;
        s->user_data = (unsigned)i;
    }
    __atomic_store_n(r->sq_tail, tail + (unsigned)count, __ATOMIC_RELEASE);
    int done = (int)syscall(SYS_io_uring_enter, r->fd, count, 0, IORING_ENTER_GETEVENTS, NULL, 0);
    if (done < 0) done = 0; /* nothing was taken: no memory, another thread, or a signal before the first */
    int found = failures(r, parts, stuck);
    if (done == count) return found;
    __atomic_store_n(r->sq_tail, tail + (unsigned)done, __ATOMIC_RELEASE); /* take back what was not submitted */
    int more = send_each(parts + done, count - done, stuck + found);
    for (int k = found; k < found + more; k++) stuck[k] += done;
    return found + more;
}

#else /* headers of a kernel before 6.1 */
struct ring *ring_open(void) {
    errno = ENOSYS;
    return NULL;
}
void ring_close(struct ring *r) { (void)r; }
int send_batch(struct ring *r, struct part *parts, int count, int *stuck) { return r ? 0 : send_each(parts, count, stuck); }
#endif

int send_each(struct part *parts, int count, int *stuck) {
    int found = 0;
    for (int i = 0; i < count; i++) {
        struct part *one = &parts[i];
        ssize_t n;
        do
            n = send(one->descriptor, one->data, one->size, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n == (ssize_t)one->size) continue;
        one->sent = n >= 0 ? (int)n : errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
        stuck[found++] = i;
    }
    return found;
}
