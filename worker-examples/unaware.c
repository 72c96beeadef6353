// An ordinary epoll server in C. It knows nothing of maitred but the number that it tells its clients.
//   cc -O2 -o /tmp/unaware worker-examples/unaware.c
//   maitred -w 4 -- /tmp/unaware 8080
// With a second argument its copies share a port by themselves (SO_REUSEPORT), for comparison.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct sockaddr_in addr = {.sin_family = AF_INET,
                             .sin_port = htons(argc > 1 ? atoi(argv[1]) : 8080),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, argc > 2 ? SO_REUSEPORT : SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&addr, sizeof addr) || listen(listener, 1024)) {
    perror("cannot listen");
    return 1;
  }
  char body[64], answer[256];
  const char *slot = getenv("MAITRED_SLOT");
  int body_len = snprintf(body, sizeof body, "slot %s, process %d\n", slot ? slot : "-", getpid());
  int len = snprintf(answer, sizeof answer,
                     "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nMaitred-Slot: %s\r\nConnection: close\r\n\r\n%s",
                     body_len, slot ? slot : "0", body);

  int set = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[64];
  epoll_ctl(set, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int n = epoll_wait(set, events, 64, -1);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
          event.data.fd = fd;
          epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
        }
        continue;
      }
      char request[4096];
      if (read(fd, request, sizeof request) > 0 && write(fd, answer, len) < 0) perror("cannot answer");
      close(fd);
    }
  }
}
