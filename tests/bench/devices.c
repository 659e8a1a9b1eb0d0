/* Devices for the benchmark: one process, epoll, N WebSocket connections that say hello and count states.
 *
 *   devices HOST PORT CONNECTIONS WINDOW SOURCES HELLOS [SMALL]
 *
 * A state that asks for acks is acknowledged by those whose hash is below its `p`, at once: harder on the server than spread over
 * its `w`. The device of connection i is `device-I`.
 *
 * HELLOS holds one hello per line (JSON); connection i sends line i. WINDOW handshakes are in flight at once. Connection i comes
 * from 127.0.1.(1 + i % SOURCES), so that no (source, destination) pair runs out of ports. The first SMALL connections have a
 * receive buffer of 8 KB.
 *
 * stdout, one line each:   ready SECONDS REFUSED OVERFLOWN       when every connection has its welcome
 *                          seq N COUNT FIRST P50 P99 LAST WHO    when every connection that reads has a state of seq N or newer:
 *                                                                CLOCK_MONOTONIC ns of the reads, and the connection that read last
 *                          lost N                                a connection was closed
 *                          back LAST REFUSED OVERFLOWN SEQ       after `again`: every connection has its welcome once more; ns of
 *                                                                the last one, and the least seq that a welcome brought
 *                          live N CLOSED BROKEN                  after `resume`: N stalled ones have the newest state, CLOSED were
 *                                                                closed with a code, BROKEN had something else than frames
 * stdin: "stall N"    the first N connections read nothing from now on; "resume" ends that
 *        "ping MS"    every connection sends a ping each MS, all of them spread evenly
 *        "again PORT" from now on what is lost connects again, to PORT, WINDOW or not; where nobody listens, after 20 ms
 *        "quit" or the end of file ends it. */
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

enum { IDLE, CONNECTING, UPGRADING, GREETING, READY, GONE };
#define BUFFER 4096
struct connection { int fd, state; uint32_t have; long seq; char *buffer; int64_t at; };

static struct connection *all;
static int64_t *times;
static char **hellos;
static int count, window, sources, small, epoll, ready, started, flying, refused, stalled, waiting, insist, resuming, live, closed, broken;
static int64_t ping_every, pinged_at, last_welcome;
static long least, newest;
static double pings_due;
static int ping_next;
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
    int room = 4096;
    if (i < small) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
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
    if (!insist) { start_one(i); return; }
    c->at = now_ns() + 20000000;
    waiting++;
}

static void retry(void) {
    int64_t now = now_ns();
    for (int i = 0; i < count && waiting; i++)
        if (all[i].state == IDLE && all[i].at && all[i].at <= now) { all[i].at = 0; waiting--; start_one(i); }
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
    all[i].seq = 0;
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
    int reading = count - stalled;
    qsort(times, (size_t)reading, sizeof *times, by_time);
    printf("seq %ld %d %lld %lld %lld %lld %d\n", seq, reading, (long long)times[0], (long long)times[reading / 2],
           (long long)times[(size_t)reading * 99 / 100], (long long)times[reading - 1], who);
    fflush(stdout);
}

static uint32_t ack_hash(int i, long gen, long seq) { /* as stagecast/wire/sampling.py */
    char text[96];
    int size = snprintf(text, sizeof text, "device-%d|%ld|%ld", i, gen, seq);
    uint32_t h = 0x811C9DC5;
    for (int k = 0; k < size; k++) h = (h ^ (unsigned char)text[k]) * 0x01000193;
    h = (h ^ h >> 16) * 0x85EBCA6B;
    h = (h ^ h >> 13) * 0xC2B2AE35;
    return h ^ h >> 16;
}

static void acknowledge(int i, const char *payload, size_t size, long seq) {
    const char *policy = memmem(payload, size, "\"ack\":{\"p\":", 11), *found = memmem(payload, size, "\"gen\":", 6);
    if (!policy || !found) return;
    long gen = atol(found + 6);
    if ((long long)ack_hash(i, gen, seq) >= atoll(policy + 11)) return;
    char frame[132] = "\x81";
    int length = snprintf(frame + 6, sizeof frame - 6,
        "{\"t\":\"ack\",\"e\":\"bench\",\"gen\":%ld,\"seq\":%ld,\"r\":\"switched\",\"ms\":0}", gen, seq);
    frame[1] = (char)(0x80 | length); /* mask 0 */
    send(all[i].fd, frame, (size_t)length + 6, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void on_text(int i, const char *payload, size_t size, int64_t when) {
    struct connection *c = &all[i];
    if (c->state == GREETING) {
        if (!memmem(payload, size, "\"welcome\"", 9)) { fprintf(stderr, "no welcome: %.*s\n", (int)size, payload); exit(1); }
        char *head = memmem(payload, size, "\"seq\":", 6);
        c->seq = head ? atol(head + 6) : 0;
        if (c->seq < least) least = c->seq;
        c->state = READY;
        flying--;
        ready++;
        last_welcome = when;
        return;
    }
    const char *found = memmem(payload, size, "\"seq\":", 6);
    if (!found || !memmem(payload, size, "\"state\"", 7)) return;
    long seq = atol(found + 6);
    if (seq <= c->seq) return;
    c->seq = seq;
    acknowledge(i, payload, size, seq);
    if (seq > newest) newest = seq;
    if (i < stalled) return;
    if (seq > current) { current = seq; current_count = 0; }
    if (seq == current) {
        times[current_count++] = when;
        if (current_count == count - stalled) report(seq, i);
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
        uint32_t left = c->have - at, head = 2, size = 0;
        if (left < 2) break;
        size = p[1] & 0x7f;
        if (size == 126) { if (left < 4) break; size = (uint32_t)(p[2] << 8 | p[3]); head = 4; }
        if (left < head + size) break;
        if (p[0] != 0x81 && p[0] != 0x88 && p[0] != 0x8a) broken++;
        if (p[0] == 0x88) closed += i < resuming;
        if (p[0] == 0x81) on_text(i, (char *)p + head, size, when);
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
    if (insist) { ready--; flying++; again(i); refused--; return; }
    close(c->fd);
    c->state = GONE;
    if (i < resuming) return;
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

static void watch_stalled(int events) {
    for (int i = 0; i < stalled; i++) {
        struct epoll_event event = {.events = (uint32_t)events, .data.u32 = (uint32_t)i};
        if (all[i].state == READY) epoll_ctl(epoll, events ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, all[i].fd, &event);
    }
}

static void look_at_resumed(void) { /* all have the newest state, or are gone */
    int left = 0;
    live = 0;
    for (int i = 0; i < resuming; i++) {
        if (all[i].state == READY && all[i].seq >= newest) live++;
        else if (all[i].state == READY) left++;
    }
    if (left) return;
    printf("live %d %d %d\n", live, closed, broken);
    fflush(stdout);
    resuming = 0;
}

static void send_pings(void) {
    int64_t now = now_ns();
    static const char PING[] = "\x81\x92\0\0\0\0{\"t\":\"ping\",\"c\":1}";
    pings_due += (double)(now - pinged_at) * count / (double)ping_every;
    pinged_at = now;
    for (; pings_due >= 1; pings_due -= 1) {
        if (all[ping_next].state == READY) send(all[ping_next].fd, PING, sizeof PING - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        ping_next = (ping_next + 1) % count;
    }
}

static int command(char *line) {
    if (!strncmp(line, "stall ", 6)) { stalled = atoi(line + 6); watch_stalled(0); }
    else if (!strncmp(line, "resume", 6)) { resuming = stalled; watch_stalled(EPOLLIN); stalled = 0; }
    else if (!strncmp(line, "ping ", 5)) { ping_every = atol(line + 5) * 1000000LL; pinged_at = now_ns(); }
    else if (!strncmp(line, "again ", 6)) { insist = 1; refused = 0; least = 1L << 60; server.sin_port = htons((uint16_t)atoi(line + 6)); }
    else return 0;
    return 1;
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
    if (argc != 7 && argc != 8) { fprintf(stderr, "devices HOST PORT CONNECTIONS WINDOW SOURCES HELLOS [SMALL]\n"); return 2; }
    small = argc == 8 ? atoi(argv[7]) : 0;
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
            before = overflown();
        }
        if (insist == 1 && ready < count) insist = 2;
        if (insist == 2 && ready == count) {
            printf("back %lld %d %ld %ld\n", (long long)last_welcome, refused, overflown() - before, least);
            fflush(stdout);
            insist = 0;
        }
        if (waiting) retry();
        if (ping_every) send_pings();
        if (resuming) look_at_resumed();
        int n = epoll_wait(epoll, events, 1024, waiting || ping_every || resuming ? 10 : -1);
        for (int k = 0; k < n; k++) {
            if (events[k].data.u32 != UINT32_MAX) { on_event(&events[k]); continue; }
            char line[64];
            if (read(0, line, sizeof line) <= 0 || !command(line)) return 0;
        }
    }
}
