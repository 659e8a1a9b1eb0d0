/* One frame to many sockets, in one call: what pushy/fanout.py does without it, a system call after the other with nothing between.
 *
 * Returns how many did not take the whole frame. For the k-th of these, stuck[k] is its place in `descriptors` and sent[k] how many
 * bytes it took (0: its buffer is full), or a negative errno. Never blocks, never raises SIGPIPE; keeps nothing. */
#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>

int fan_out(const int *descriptors, int count, const char *frame, size_t size, int *stuck, int *sent) {
    int found = 0;
    for (int i = 0; i < count; i++) {
        ssize_t n;
        do
            n = send(descriptors[i], frame, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n == (ssize_t)size) continue;
        stuck[found] = i;
        sent[found++] = n >= 0 ? (int)n : errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    }
    return found;
}
