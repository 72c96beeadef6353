// The least that a process in front can do with a connection: accept it and close it.
//   accept-close PORT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), set = epoll_create1(0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&addr, sizeof addr) || listen(listener, 1024)) return 1;
  struct epoll_event event = {.events = EPOLLIN | EPOLLET};
  epoll_ctl(set, EPOLL_CTL_ADD, listener, &event);
  puts("ready");
  fflush(stdout);
  for (;;) {
    epoll_wait(set, &event, 1, -1);
    for (;;) {
      struct sockaddr_storage peer;
      socklen_t len = sizeof peer;
      int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);
      if (fd < 0) break;
      close(fd);
    }
  }
}
