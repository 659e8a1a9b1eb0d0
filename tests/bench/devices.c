/* Devices for the benchmark: one process, epoll, N WebSocket connections that say hello and count states.
 *
 *   devices HOST PORT CONNECTIONS WINDOW SOURCES HELLOS
 *
 * HELLOS holds one hello per line (JSON); connection i sends line i. WINDOW handshakes are in flight at once. Connection i comes
 * from 127.0.1.(1 + i % SOURCES), so that no (source, destination) pair runs out of ports.
 *
 * stdout, one line each:   ready SECONDS REFUSED OVERFLOWN       when every connection has its welcome
 *                          seq N COUNT FIRST P50 P99 LAST WHO    when every connection has a state of seq N: CLOCK_MONOTONIC ns
 *                                                                of the reads, and the connection that read last
 *                          lost N                                a connection was closed
 * stdin: "quit" or the end of file ends it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IDLE, CONNECTING, UPGRADING, GREETING, READY };
#define BUFFER 4096
struct connection { int fd, state; uint32_t have; long seq; char *buffer; };

static struct connection *all;
static int64_t *times;
static char **hellos;
static int count, window, sources, epoll, ready, started, flying, refused;
static long current = -1;
static int current_count, lost;
static struct sockaddr_in server;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) { perror(what); exit(1); }

static void start_one(int i) {
    struct connection *c = &all[i];
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000101 + i % sources)};
    if (bind(c->fd, (struct sockaddr *)&source, sizeof source)) die("bind");
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) die("connect");
    c->state = CONNECTING;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)i};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    flying++;
}

static void again(int i) { /* refused or broken before its welcome: once more */
    struct connection *c = &all[i];
    close(c->fd);
    free(c->buffer);
    c->buffer = NULL;
    c->have = 0;
    c->state = IDLE;
    flying--;
    refused++;
    start_one(i);
}

static void send_all(int i, const char *data, size_t size) {
    if (send(all[i].fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) die("send");
}

static void upgrade(int i) {
    char request[512];
    int size = snprintf(request, sizeof request,
        "GET /ws HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: stagecast.v1\r\n\r\n", inet_ntoa(server.sin_addr), ntohs(server.sin_port));
    send_all(i, request, (size_t)size);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
    epoll_ctl(epoll, EPOLL_CTL_MOD, all[i].fd, &event);
    all[i].state = UPGRADING;
}

static void greet(int i) {
    char frame[BUFFER];
    size_t size = strlen(hellos[i]), at = 4;
    if (size > BUFFER - 8 || size < 126) { fprintf(stderr, "a hello of %zu bytes\n", size); exit(1); }
    frame[0] = (char)0x81;
    frame[1] = (char)(0x80 | 126);
    frame[2] = (char)(size >> 8);
    frame[3] = (char)size;
    memset(frame + at, 0, 4); /* mask 0: the payload as it is */
    memcpy(frame + at + 4, hellos[i], size);
    send_all(i, frame, at + 4 + size);
    all[i].state = GREETING;
}

static int by_time(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void report(long seq, int who) {
    qsort(times, (size_t)count, sizeof *times, by_time);
    printf("seq %ld %d %lld %lld %lld %lld %d\n", seq, count, (long long)times[0], (long long)times[count / 2],
           (long long)times[(size_t)count * 99 / 100], (long long)times[count - 1], who);
    fflush(stdout);
}

static void on_text(int i, const char *payload, size_t size, int64_t when) {
    struct connection *c = &all[i];
    if (c->state == GREETING) {
        if (!memmem(payload, size, "\"welcome\"", 9)) { fprintf(stderr, "no welcome: %.*s\n", (int)size, payload); exit(1); }
        c->state = READY;
        flying--;
        ready++;
        return;
    }
    const char *found = memmem(payload, size, "\"seq\":", 6);
    if (!found || !memmem(payload, size, "\"state\"", 7)) return;
    long seq = atol(found + 6);
    if (seq <= c->seq) return;
    c->seq = seq;
    if (seq > current) { current = seq; current_count = 0; }
    if (seq == current) {
        times[current_count++] = when;
        if (current_count == count) report(seq, i);
    }
}

static void parse(int i, int64_t when) {
    struct connection *c = &all[i];
    uint32_t at = 0;
    if (c->state == UPGRADING) {
        char *end = memmem(c->buffer, c->have, "\r\n\r\n", 4);
        if (!end) return;
        if (memcmp(c->buffer, "HTTP/1.1 101", 12)) { again(i); return; }
        at = (uint32_t)(end + 4 - c->buffer);
        greet(i);
    }
    for (;;) {
        unsigned char *p = (unsigned char *)c->buffer + at;
        uint32_t left = c->have - at, head = 2, size;
        if (left < 2) break;
        size = p[1] & 0x7f;
        if (size == 126) { if (left < 4) break; size = (uint32_t)(p[2] << 8 | p[3]); head = 4; }
        if (left < head + size) break;
        if ((p[0] & 0x0f) == 1) on_text(i, (char *)p + head, size, when);
        at += head + size;
    }
    memmove(c->buffer, c->buffer + at, c->have - at);
    c->have -= at;
    if (!c->have) { free(c->buffer); c->buffer = NULL; }
}

static void on_readable(int i) {
    struct connection *c = &all[i];
    if (!c->buffer) { c->buffer = malloc(BUFFER); if (!c->buffer) die("malloc"); }
    ssize_t got = recv(c->fd, c->buffer + c->have, BUFFER - c->have, 0);
    int64_t when = now_ns();
    if (got > 0) { c->have += (uint32_t)got; parse(i, when); return; }
    if (got < 0 && errno == EAGAIN) return;
    if (c->state != READY) { again(i); return; }
    close(c->fd);
    printf("lost %d\n", ++lost);
    fflush(stdout);
}

static void on_event(struct epoll_event *event) {
    int i = (int)event->data.u32;
    struct connection *c = &all[i];
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) again(i);
        else if (event->events & EPOLLOUT) upgrade(i);
        return;
    }
    if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(i);
}

static long overflown(void) { /* TcpExtListenOverflows of this network namespace */
    char names[8192], values[8192];
    FILE *file = fopen("/proc/net/netstat", "r");
    long found = 0;
    while (file && fgets(names, sizeof names, file) && fgets(values, sizeof values, file)) {
        char *a, *b, *name = strtok_r(names, " \n", &a), *value = strtok_r(values, " \n", &b);
        for (; name && value; name = strtok_r(NULL, " \n", &a), value = strtok_r(NULL, " \n", &b))
            if (!strcmp(name, "ListenOverflows")) found = atol(value);
    }
    if (file) fclose(file);
    return found;
}

static void read_hellos(const char *path) {
    FILE *file = fopen(path, "r");
    size_t room = 0;
    if (!file) die(path);
    hellos = calloc((size_t)count, sizeof *hellos);
    for (int i = 0; i < count; i++) {
        ssize_t size = getline(&hellos[i], &room, file);
        if (size < 1) { fprintf(stderr, "%s: no line %d\n", path, i + 1); exit(1); }
        hellos[i][size - 1] = 0;
        room = 0;
    }
    fclose(file);
}

int main(int argc, char **argv) {
    if (argc != 7) { fprintf(stderr, "devices HOST PORT CONNECTIONS WINDOW SOURCES HELLOS\n"); return 2; }
    server.sin_family = AF_INET;
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    count = atoi(argv[3]); window = atoi(argv[4]); sources = atoi(argv[5]);
    all = calloc((size_t)count, sizeof *all);
    times = calloc((size_t)count, sizeof *times);
    read_hellos(argv[6]);
    epoll = epoll_create1(0);
    struct epoll_event input = {.events = EPOLLIN, .data.u32 = UINT32_MAX}, events[1024];
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input);
    int64_t begin = now_ns();
    long before = overflown();
    int announced = 0;
    for (;;) {
        while (started < count && flying < window) start_one(started++);
        if (ready == count && !announced) {
            printf("ready %.4f %d %ld\n", (double)(now_ns() - begin) / 1e9, refused, overflown() - before);
            fflush(stdout);
            announced = 1;
        }
        int n = epoll_wait(epoll, events, 1024, -1);
        for (int k = 0; k < n; k++) {
            if (events[k].data.u32 != UINT32_MAX) { on_event(&events[k]); continue; }
            char line[64];
            if (read(0, line, sizeof line) <= 0 || !strncmp(line, "quit", 4)) return 0;
        }
    }
}
