/* The floor: the least that a WebSocket fan-out can cost. Bare epoll, a constant upgrade answer, a constant welcome, one send()
 * per connection and message. No session, no token, no order, no care for slow readers: a bound, not a product.
 *
 *   floor PORT [shared]     shared: several processes on one port, SO_REUSEPORT
 *
 * stdin:  send JSON    writes JSON as one text frame to every connection that said hello
 * stdout: port N       it listens
 *         sent N       N whole frames went into the sockets */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 20000
static const char UPGRADED[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\nSec-WebSocket-Protocol: stagecast.v1\r\n\r\n";
static const char WELCOME[] = "\x81\x0f{\"t\":\"welcome\"}";
static int subscribers[MOST], place[65536], count, epoll;
static char upgraded[65536];

static size_t framed(char *frame, const char *json, size_t size) {
    frame[0] = (char)0x81;
    if (size < 126) { frame[1] = (char)size; memcpy(frame + 2, json, size); return size + 2; }
    frame[1] = 126;
    frame[2] = (char)(size >> 8);
    frame[3] = (char)size;
    memcpy(frame + 4, json, size);
    return size + 4;
}

static void publish(const char *json, size_t size) {
    char frame[1024];
    size_t whole = framed(frame, json, size);
    int sent = 0;
    for (int i = 0; i < count; i++) sent += send(subscribers[i], frame, whole, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)whole;
    printf("sent %d\n", sent);
    fflush(stdout);
}

static void forget(int fd) {
    if (upgraded[fd] == 2) {
        int last = subscribers[--count];
        subscribers[place[fd]] = last;
        place[last] = place[fd];
    }
    upgraded[fd] = 0;
    close(fd);
}

static void on_readable(int fd) {
    char data[8192];
    ssize_t got = recv(fd, data, sizeof data, 0);
    if (got <= 0) { forget(fd); return; }
    if (!upgraded[fd]) {
        upgraded[fd] = 1;
        send(fd, UPGRADED, sizeof UPGRADED - 1, MSG_NOSIGNAL);
    } else if (upgraded[fd] == 1) {
        upgraded[fd] = 2;
        if (count < MOST) subscribers[place[fd] = count++] = fd;
        send(fd, WELCOME, sizeof WELCOME - 1, MSG_NOSIGNAL);
    }
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv) {
    int one = 1, listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0))};
    socklen_t size = sizeof address;
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (argc > 2) setsockopt(listening, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 4096)) { perror("listen"); return 1; }
    getsockname(listening, (struct sockaddr *)&address, &size);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll = epoll_create1(0);
    watch(listening);
    watch(0);
    struct epoll_event events[1024];
    for (;;) {
        int n = epoll_wait(epoll, events, 1024, -1);
        for (int k = 0; k < n; k++) {
            int fd = events[k].data.fd;
            if (fd == 0) {
                char line[1024];
                ssize_t got = read(0, line, sizeof line);
                if (got <= 0) return 0;
                if (!strncmp(line, "send ", 5)) publish(line + 5, (size_t)got - 6);
            } else if (fd == listening) {
                for (int made; (made = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    watch(made);
                }
            } else on_readable(fd);
        }
    }
}
