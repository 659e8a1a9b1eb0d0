/* Devices for the benchmark: one process, epoll, N WebSocket connections that say hello and count states.
 *
 *   devices HOST PORT MOST WINDOW SOURCE SOURCES HELLOS [SMALL]
 *
 * HELLOS holds one hello per line (JSON); connection i sends line i. `-`: no hello, the upgrade is the welcome. WINDOW handshakes
 * are in flight at once. Connection i comes from the address SOURCE + i % SOURCES, so that no (source, destination) pair runs out
 * of ports. The first SMALL connections have a receive buffer of 8 KB. A state that asks for acks is acknowledged by those whose
 * hash is below its `p`, at once: harder on the server than spread over its `w`. The device of connection i is `device-I`.
 *
 * stdin:  go N         N connections more, at most MOST in all
 *         close        all of them end
 *         stall N      the first N read nothing from now on
 *         resume       and read again
 *         ping MS      every connection sends a ping each MS, all of them spread evenly
 *         again PORT   from now on what is lost connects again, to PORT, at once; after 20 ms where it was refused
 *         paced PORT   as `again`, but at U(0, hi) of the `back` in its welcome, as a device does
 *         stamp        from now on the kernel notes when a state came to a socket: see ARRIVED
 *         quit         or the end of file ends it
 *
 * stdout: loaded                        it waits for `go`
 *         ready BEGAN LAST REFUSED DROPPED   all have their welcome; CLOCK_MONOTONIC ns of `go` and of the last welcome, attempts
 *                                       that were refused, and what the kernel dropped at listening sockets since `go`
 *         closed                        after `close`
 *         seq N COUNT FIRST P50 P99 LAST WHO ARRIVED   all that read have a state of seq N or newer: ns of the reads, who read
 *                                       last, and ns of its first coming to a socket, by the kernel; without `stamp` of the first read
 *         lost N                        a connection was closed
 *         back LAST REFUSED DROPPED SEQ after `again`: all have their welcome once more; the least seq that a welcome brought
 *         live N CLOSED BROKEN          after `resume`: N stalled ones have the newest state, CLOSED were closed with a code, BROKEN
 *                                       had something else than frames */
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
#define BUFFER 16384
#define EVENTS (EPOLLIN | EPOLLOUT | EPOLLET) /* edges: nothing needs to be changed once a connection stands */
struct connection { int fd, state, back; uint32_t have; long seq; char *buffer; int64_t at; };

static struct connection *all;
static int64_t *times;
static char **hellos;
static int most, wanted, window, sources, small, epoll, ready, started, flying, refused, stalled, waiting, insist, resuming, live, closed, broken;
static int64_t ping_every, pinged_at, last_welcome;
static long least, newest;
static double pings_due;
static uint32_t source;
static int paced;
static int ping_next;
static long current = -1;
static int current_count, lost, announced = 1;
static int stamping;
static int64_t begun, came, first_came; /* by the kernel's clock: what is being read now, and the current state first */
static long drops;
static struct sockaddr_in server;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) { perror(what); exit(1); }

static int upgrade(int i) { /* asks for it; 0: not connected yet (over loopback it is as soon as connect() returns) */
    char request[512];
    int size = snprintf(request, sizeof request,
        "GET /ws HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: stagecast.v1\r\n\r\n", inet_ntoa(server.sin_addr), ntohs(server.sin_port));
    return send(all[i].fd, request, (size_t)size, MSG_NOSIGNAL) == size;
}

static void start_one(int i) {
    struct connection *c = &all[i];
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    int room = 4096;
    if (i < small) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source + (uint32_t)(i % sources))};
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) die("bind");
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) die("connect");
    flying++;
    c->state = upgrade(i) ? UPGRADING : CONNECTING;
    struct epoll_event event = {.events = EVENTS, .data.u32 = (uint32_t)i};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static void forget(int i) {
    struct connection *c = &all[i];
    close(c->fd);
    free(c->buffer);
    c->buffer = NULL;
    c->have = 0;
    c->state = IDLE;
}

static void again(int i) { /* refused or broken before its welcome, or lost: once more */
    struct connection *c = &all[i];
    int stood = c->state == READY;
    forget(i);
    flying--;
    refused++;
    if (!insist || (stood && !paced)) { start_one(i); return; }
    c->at = now_ns() + (paced ? (int64_t)(drand48() * c->back * 1e6) : 20000000);
    waiting++;
}

static void retry(void) {
    int64_t now = now_ns();
    for (int i = 0; i < wanted && waiting; i++)
        if (all[i].state == IDLE && all[i].at && all[i].at <= now) { all[i].at = 0; waiting--; start_one(i); }
}

static void send_all(int i, const char *data, size_t size) {
    if (send(all[i].fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) die("send");
}

static void greet(int i) {
    char frame[4096];
    size_t size = strlen(hellos[i]), at = 4;
    all[i].seq = 0;
    if (size > 4000 || size < 126) { fprintf(stderr, "a hello of %zu bytes\n", size); exit(1); }
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
    int reading = wanted - stalled;
    qsort(times, (size_t)reading, sizeof *times, by_time);
    printf("seq %ld %d %lld %lld %lld %lld %d %lld\n", seq, reading, (long long)times[0], (long long)times[reading / 2],
           (long long)times[(size_t)reading * 99 / 100], (long long)times[reading - 1], who, (long long)first_came);
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

static void welcomed(int i, long seq, int64_t when) {
    struct connection *c = &all[i];
    c->seq = seq;
    if (seq < least) least = seq;
    c->state = READY;
    flying--;
    ready++;
    last_welcome = when;
}

static void on_text(int i, const char *payload, size_t size, int64_t when) {
    struct connection *c = &all[i];
    if (c->state == GREETING) {
        if (!memmem(payload, size, "\"welcome\"", 9)) { fprintf(stderr, "no welcome: %.*s\n", (int)size, payload); exit(1); }
        char *head = memmem(payload, size, "\"seq\":", 6), *back = memmem(payload, size, "\"back\":[", 8);
        if (back && (back = memchr(back, ',', (size_t)(payload + size - back)))) c->back = atoi(back + 1);
        welcomed(i, head ? atol(head + 6) : 0, when);
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
    if (seq > current) { current = seq; current_count = 0; first_came = came; }
    if (seq == current && came < first_came) first_came = came;
    if (seq == current) {
        times[current_count++] = when;
        if (current_count == wanted - stalled) report(seq, i);
    }
}

static uint32_t parse(int i, char *data, uint32_t have, int64_t when) { /* how much of it has been taken */
    struct connection *c = &all[i];
    uint32_t at = 0;
    if (c->state == UPGRADING) {
        char *end = memmem(data, have, "\r\n\r\n", 4);
        if (!end) return 0;
        if (memcmp(data, "HTTP/1.1 101", 12)) { again(i); return have; }
        at = (uint32_t)(end + 4 - data);
        if (hellos) greet(i);
        else welcomed(i, 0, when);
    }
    for (;;) {
        unsigned char *p = (unsigned char *)data + at;
        uint32_t left = have - at, head = 2, size = 0;
        if (left < 2) break;
        size = p[1] & 0x7f;
        if (size == 126) { if (left < 4) break; size = (uint32_t)(p[2] << 8 | p[3]); head = 4; }
        if (left < head + size) break;
        if (p[0] != 0x81 && p[0] != 0x88 && p[0] != 0x8a) broken++;
        if (p[0] == 0x88) closed += i < resuming;
        if (p[0] == 0x81) on_text(i, (char *)p + head, size, when);
        at += head + size;
    }
    return at;
}

static void ended(int i) {
    struct connection *c = &all[i];
    if (c->state != READY) { again(i); return; }
    if (insist) { ready--; flying++; again(i); refused--; return; }
    close(c->fd);
    c->state = GONE;
    if (i < resuming) return;
    printf("lost %d\n", ++lost);
    fflush(stdout);
}

static void stamp_from_now_on(void) {
    int one = 1;
    stamping = 1;
    for (int i = 0; i < wanted; i++)
        if (all[i].state == READY && setsockopt(all[i].fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one)) die("SO_TIMESTAMPNS");
}

static ssize_t receive(int fd, char *data, size_t room) { /* and when it came, into `came` */
    if (!stamping) {
        ssize_t got = recv(fd, data, room, 0);
        came = now_ns();
        return got;
    }
    char control[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec part = {data, room};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &message, 0);
    came = now_ns();
    struct cmsghdr *said = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (said && said->cmsg_type == SCM_TIMESTAMPNS) { /* wall time: back by its age */
        struct timespec t, now;
        memcpy(&t, CMSG_DATA(said), sizeof t);
        clock_gettime(CLOCK_REALTIME, &now);
        came -= (now.tv_sec - t.tv_sec) * 1000000000LL + now.tv_nsec - t.tv_nsec;
    }
    return got;
}

static void on_readable(int i) { /* until there is no more */
    static char shared[BUFFER]; /* most reads end with a whole frame: only a part of one is kept with its connection */
    struct connection *c = &all[i];
    for (int fd = c->fd; c->fd == fd;) {
        char *data = c->have ? c->buffer : shared;
        ssize_t got = receive(fd, data + c->have, BUFFER - c->have);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) { ended(i); return; }
        int whole = got == (ssize_t)(BUFFER - c->have);
        uint32_t have = c->have + (uint32_t)got, taken = parse(i, data, have, now_ns());
        if (c->state == IDLE || c->fd != fd) return; /* refused, and tried again */
        c->have = have - taken;
        if (c->have && !c->buffer && !(c->buffer = malloc(BUFFER))) die("malloc");
        if (c->have) memmove(c->buffer, data + taken, c->have);
        else { free(c->buffer); c->buffer = NULL; }
        if (!whole) return;
    }
}

static void on_event(struct epoll_event *event) {
    int i = (int)event->data.u32;
    struct connection *c = &all[i];
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error || event->events & (EPOLLERR | EPOLLHUP)) again(i);
        else if (event->events & EPOLLOUT && upgrade(i)) c->state = UPGRADING;
        return;
    }
    if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(i);
}

static long dropped(void) { /* TcpExtListenDrops of this network namespace: full accept queues included */
    char names[8192], values[8192];
    FILE *file = fopen("/proc/net/netstat", "r");
    long found = 0;
    while (file && fgets(names, sizeof names, file) && fgets(values, sizeof values, file)) {
        char *a, *b, *name = strtok_r(names, " \n", &a), *value = strtok_r(values, " \n", &b);
        for (; name && value; name = strtok_r(NULL, " \n", &a), value = strtok_r(NULL, " \n", &b))
            if (!strcmp(name, "ListenDrops")) found = atol(value);
    }
    if (file) fclose(file);
    return found;
}

static void watch_stalled(int events) {
    for (int i = 0; i < stalled; i++) {
        struct epoll_event event = {.events = events ? EVENTS : 0, .data.u32 = (uint32_t)i};
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
    pings_due += (double)(now - pinged_at) * wanted / (double)ping_every;
    pinged_at = now;
    for (; pings_due >= 1; pings_due -= 1) {
        if (all[ping_next].state == READY) send(all[ping_next].fd, PING, sizeof PING - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        ping_next = (ping_next + 1) % wanted;
    }
}

static void go(int more) {
    wanted = wanted + more > most ? most : wanted + more;
    announced = refused = 0;
    begun = now_ns();
    drops = dropped();
}

static void close_all(void) {
    for (int i = 0; i < wanted; i++)
        if (all[i].state != IDLE && all[i].state != GONE) forget(i);
    memset(all, 0, (size_t)most * sizeof *all);
    wanted = started = ready = flying = waiting = 0;
    announced = 1;
    current = -1;
    printf("closed\n");
    fflush(stdout);
}

static void insist_on(int port, int pace) {
    insist = 1;
    paced = pace;
    refused = 0;
    least = 1L << 60;
    server.sin_port = htons((uint16_t)port);
    drops = dropped();
}

static int command(const char *line) {
    if (!strncmp(line, "go ", 3)) go(atoi(line + 3));
    else if (!strncmp(line, "close", 5)) close_all();
    else if (!strncmp(line, "stamp", 5)) stamp_from_now_on();
    else if (!strncmp(line, "stall ", 6)) { stalled = atoi(line + 6); watch_stalled(0); }
    else if (!strncmp(line, "resume", 6)) { resuming = stalled; watch_stalled(EPOLLIN); stalled = 0; }
    else if (!strncmp(line, "ping ", 5)) { ping_every = atol(line + 5) * 1000000LL; pinged_at = now_ns(); }
    else if (!strncmp(line, "again ", 6)) insist_on(atoi(line + 6), 0);
    else if (!strncmp(line, "paced ", 6)) insist_on(atoi(line + 6), 1);
    else return 0;
    return 1;
}

static void read_hellos(const char *path) {
    FILE *file = fopen(path, "r");
    size_t room = 0;
    if (!file) die(path);
    hellos = calloc((size_t)most, sizeof *hellos);
    for (int i = 0; i < most; i++) {
        ssize_t size = getline(&hellos[i], &room, file);
        if (size < 1) { fprintf(stderr, "%s: no line %d\n", path, i + 1); exit(1); }
        hellos[i][size - 1] = 0;
        room = 0;
    }
    fclose(file);
}

static void prepare(char **argv) {
    server.sin_family = AF_INET;
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    most = atoi(argv[3]);
    window = atoi(argv[4]);
    inet_pton(AF_INET, argv[5], &source);
    source = ntohl(source);
    sources = atoi(argv[6]);
    all = calloc((size_t)most, sizeof *all);
    times = calloc((size_t)most, sizeof *times);
    if (strcmp(argv[7], "-")) read_hellos(argv[7]);
    epoll = epoll_create1(0);
    struct epoll_event input = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input);
    srand48(getpid());
    printf("loaded\n");
    fflush(stdout);
}

static void announce(void) {
    if (ready == wanted && !announced) {
        printf("ready %lld %lld %d %ld\n", (long long)begun, (long long)last_welcome, refused, dropped() - drops);
        fflush(stdout);
        announced = 1;
    }
    if (insist == 1 && ready < wanted) insist = 2;
    if (insist == 2 && ready == wanted) {
        printf("back %lld %d %ld %ld\n", (long long)last_welcome, refused, dropped() - drops, least);
        fflush(stdout);
        insist = 0;
    }
}

int main(int argc, char **argv) {
    if (argc != 8 && argc != 9) { fprintf(stderr, "devices HOST PORT MOST WINDOW SOURCE SOURCES HELLOS [SMALL]\n"); return 2; }
    small = argc == 9 ? atoi(argv[8]) : 0;
    prepare(argv);
    struct epoll_event events[1024];
    for (;;) {
        while (started < wanted && flying < window) start_one(started++);
        announce();
        if (waiting) retry();
        if (ping_every) send_pings();
        if (resuming) look_at_resumed();
        int n = epoll_wait(epoll, events, 1024, waiting || ping_every || resuming ? 10 : -1);
        for (int k = 0; k < n; k++) {
            if (events[k].data.u32 != UINT32_MAX) { on_event(&events[k]); continue; }
            char line[64];
            ssize_t got = read(0, line, sizeof line - 1);
            if (got <= 0) return 0;
            line[got] = 0;
            if (!command(line)) return 0;
            if (!wanted) break; /* what else happened concerned connections that are gone */
        }
    }
}
