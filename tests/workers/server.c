// A server with every way of waiting, and some of the habits, that real servers have.
//   server MODE PORT [OPTION]...
// MODE: block | poll | select | epoll (edge-triggered) | early (registered before bind and listen)
// OPTION: fork=N        N children accept, too
//         close-after=N  closes its listener after N connections and stays
//         twice          listens on the address with two sockets (SO_REUSEPORT)
//         v6             binds ::1, all: binds ::, mapped: binds ::ffff:127.0.0.1
//         client         first makes a client connection from a bound source address
//         late           chooses whether to block between bind and listen
//         children       starts children, by fork and vfork, that close their copy of the listener
//         idle           keeps every connection open without answering
//         rlimit=N       sets its limit of descriptors
//         threads=N      N threads block in accept
//         supervised     does not check what a supervised socket cannot keep: that it has no peer, and,
//                        with port 0, that the port is the same before listen
//         signals        is interrupted by a signal a thousand times a second
//         nonsense       first makes calls that must fail as they always do
//         binds=N        first binds and listens on N other addresses in turn, and closes each
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static int idle, late, supervised, reuse_port, port, close_after = -1;
static char answer[512];
static int answer_len;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static const char *option(int argc, char **argv, const char *name) {
  size_t len = strlen(name);
  for (int i = 3; i < argc; i++) {
    if (!strcmp(argv[i], name)) return "";
    if (!strncmp(argv[i], name, len) && argv[i][len] == '=') return argv[i] + len + 1;
  }
  return NULL;
}

static void serve(int fd, int family) {
  struct sockaddr_storage peer;
  socklen_t len = sizeof peer;
  char request[4096];
  if (fcntl(fd, F_GETFL) & O_NONBLOCK) fail("accept() must give a blocking socket");
  if (read(fd, request, sizeof request) > 0) {
    if (getpeername(fd, (struct sockaddr *)&peer, &len)) peer.ss_family = 0;
    (void)family;
    if (write(fd, answer, answer_len) < 0) perror("write");
  }
  close(fd);
}

// Takes connections until there are none; returns 0 when told to close the listener.
static int take(int listener, int once) {
  static int taken;
  for (;;) {
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    memset(&peer, 0, sizeof peer);
    int fd = accept(listener, (struct sockaddr *)&peer, &len);
    if (fd < 0) {
      if (errno == EAGAIN) return 1;
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EMFILE) {
        // Give one back by waiting; a real server would close idle ones.
        usleep(1000);
        return 1;
      }
      fail("accept");
    }
    struct sockaddr_storage mine;
    socklen_t mine_len = sizeof mine;
    getsockname(listener, (struct sockaddr *)&mine, &mine_len);
    if (peer.ss_family != mine.ss_family) {
      fprintf(stderr, "peer of family %d on a listener of family %d\n", peer.ss_family, mine.ss_family);
      exit(1);
    }
    if (!idle) serve(fd, mine.ss_family);
    if (++taken == close_after) return 0;
    if (once) return 1;
  }
}

static void check_listener(int fd) {
  int value;
  socklen_t len = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) || value != 1) fail("SO_ACCEPTCONN");
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len) || value != SOCK_STREAM) fail("SO_TYPE");
  if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &len) || value != IPPROTO_TCP) fail("SO_PROTOCOL");
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len) || value != 0) fail("SO_ERROR");
  struct sockaddr_storage peer;
  len = sizeof peer;
  if (supervised) return;
  if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 || errno != ENOTCONN) fail("getpeername");
}

static int listen_on(struct sockaddr *addr, socklen_t len, int nonblock, int set) {
  int one = 1, fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (nonblock != late) fcntl(fd, F_SETFL, O_NONBLOCK);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (reuse_port) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 0x1122334455667788};
  if (set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
  if (bind(fd, addr, len)) fail("bind");
  if (late) {
    int on = nonblock;
    if (ioctl(fd, FIONBIO, &on)) fail("FIONBIO");
    if (!(fcntl(fd, F_GETFL) & O_NONBLOCK) != !nonblock) fail("O_NONBLOCK was not kept");
    if (fcntl(fd, F_SETFL, nonblock ? O_NONBLOCK : 0)) fail("F_SETFL");
  }
  // Some programs duplicate the socket before they listen on it.
  int copy = dup(fd);
  struct sockaddr_storage before, after;
  socklen_t before_len = sizeof before, after_len = sizeof after;
  if (getsockname(fd, (struct sockaddr *)&before, &before_len)) fail("getsockname");
  if (listen(fd, 511)) fail("listen");
  if (getsockname(copy, (struct sockaddr *)&after, &after_len)) fail("getsockname of the copy");
  if (supervised && port == 0) after = before;
  if (before_len != after_len || memcmp(&before, &after, before_len)) fail("the name changed");
  close(copy);
  check_listener(fd);
  if (listen(fd, 1024)) fail("listen again");
  return fd;
}

// A client that binds its own end must stay a client.
static void be_a_client(void) {
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof any;
  int server = socket(AF_INET, SOCK_STREAM, 0);
  if (listen(server, 5) || getsockname(server, (struct sockaddr *)&any, &len)) fail("own server");
  int client = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(client, (struct sockaddr *)&source, sizeof source)) fail("bind of a client");
  struct sockaddr_in named;
  socklen_t named_len = sizeof named;
  if (getsockname(client, (struct sockaddr *)&named, &named_len) || !named.sin_port) fail("getsockname of a client");
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(client, (struct sockaddr *)&any, sizeof any)) fail("connect of a bound client");
  int peer = accept(server, NULL, NULL);
  if (peer < 0 || write(client, "x", 1) != 1 || read(peer, &len, 1) != 1) fail("a client's byte");
  close(peer);
  close(client);
  close(server);
}

static void must_fail(const char *what, int result, int expected) {
  if (result != -1 || errno != expected) {
    fprintf(stderr, "%s: returned %d, %s, and not %s\n", what, result, strerror(errno), strerror(expected));
    exit(1);
  }
}

// Mistakes get the answers that the kernel has for them.
static void talk_nonsense(void) {
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(4711), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr *addr = (struct sockaddr *)&any;
  struct { unsigned short family; char rest[300]; } strange = {.family = 77};
  int fd = socket(AF_INET, SOCK_STREAM, 0), file = open("/dev/null", O_RDONLY), one[2];
  must_fail("bind at no address", bind(fd, (struct sockaddr *)8, sizeof any), EFAULT);
  must_fail("bind with a short address", bind(fd, addr, 3), EINVAL);
  must_fail("bind with a huge address", bind(fd, addr, 0x7fffffff), EINVAL);
  must_fail("bind with a negative length", bind(fd, addr, -1), EINVAL);
  must_fail("bind to a strange family", bind(fd, (struct sockaddr *)&strange, sizeof any), EAFNOSUPPORT);
  must_fail("bind of nothing", bind(-1, addr, sizeof any), EBADF);
  must_fail("bind of a file", bind(file, addr, sizeof any), ENOTSOCK);
  must_fail("listen on nothing", listen(-1, 5), EBADF);
  must_fail("listen on a file", listen(file, 5), ENOTSOCK);
  must_fail("accept on nothing", accept(-1, NULL, NULL), EBADF);
  must_fail("accept on what does not listen", accept(fd, NULL, NULL), EINVAL);
  any.sin_addr.s_addr = htonl(0xc0000201);
  must_fail("bind to an address of another machine", bind(fd, addr, sizeof any), EADDRNOTAVAIL);
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, one)) fail("socketpair");
  must_fail("listen on datagrams", listen(one[0], 5), EOPNOTSUPP);
  close(one[0]);
  close(one[1]);
  close(file);
  close(fd);
}

static void *accept_for_ever(void *listener) {
  for (;;) {
    int fd = accept(*(int *)listener, NULL, NULL);
    if (fd >= 0) serve(fd, AF_INET);
    else if (errno != EINTR && errno != ECONNABORTED) fail("accept in a thread");
  }
  return NULL;
}

static void on_signal(int number) { (void)number; }

static void be_interrupted(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  struct itimerval often = {{0, 1000}, {0, 1000}};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &often, NULL);
}

int main(int argc, char **argv) {
  const char *mode = argv[1], *value;
  port = atoi(argv[2]);
  signal(SIGPIPE, SIG_IGN);
  if ((value = option(argc, argv, "rlimit"))) {
    struct rlimit limit = {atoi(value), atoi(value)};
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (option(argc, argv, "signals")) be_interrupted();
  if (option(argc, argv, "nonsense")) talk_nonsense();
  reuse_port = option(argc, argv, "twice");
  if (option(argc, argv, "client")) be_a_client();
  idle = option(argc, argv, "idle") != NULL;
  late = option(argc, argv, "late") != NULL;
  supervised = option(argc, argv, "supervised") != NULL;
  if ((value = option(argc, argv, "close-after"))) close_after = atoi(value);

  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  struct sockaddr *addr = (struct sockaddr *)&v4;
  socklen_t len = sizeof v4;
  const char *name = option(argc, argv, "v6") ? "::1" : option(argc, argv, "all") ? "::" : option(argc, argv, "mapped") ? "::ffff:127.0.0.1" : NULL;
  if (name) {
    inet_pton(AF_INET6, name, &v6.sin6_addr);
    addr = (struct sockaddr *)&v6;
    len = sizeof v6;
  }

  if ((value = option(argc, argv, "binds")))
    for (int i = 0; i < atoi(value); i++) {
      struct sockaddr_in other = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
      int fd = socket(AF_INET, SOCK_STREAM, 0);
      if (bind(fd, (struct sockaddr *)&other, sizeof other) || listen(fd, 5)) fail("one of many binds");
      close(fd);
    }

  int epoll = !strcmp(mode, "epoll"), early = !strcmp(mode, "early");
  int nonblock = strcmp(mode, "block") != 0;
  int set = epoll || early ? epoll_create1(EPOLL_CLOEXEC) : -1;
  int fds[2], count = 1;
  fds[0] = listen_on(addr, len, nonblock, early ? set : -1);
  if (option(argc, argv, "twice")) fds[count++] = listen_on(addr, len, nonblock, -1);

  if (option(argc, argv, "children"))
    for (int i = 0; i < 10; i++) {
      pid_t child = i % 2 ? fork() : vfork();
      if (child == 0) {
        close(fds[0]);
        dup2(2, fds[0]);
        _exit(0);
      }
      waitpid(child, NULL, 0);
    }
  if ((value = option(argc, argv, "fork")))
    for (int i = 0; i < atoi(value); i++)
      if (fork() == 0) {
        set = epoll || early ? epoll_create1(EPOLL_CLOEXEC) : -1;
        early = 0;
        break;
      }
  const char *slot = getenv("MAITRED_SLOT");
  char body[128];
  int body_len = snprintf(body, sizeof body, "slot %s, process %d\n", slot ? slot : "-", getpid());
  answer_len = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", body_len, body);
  if (set >= 0 && !early)
    for (int i = 0; i < count; i++) {
      struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 0x1122334455667788};
      if (epoll_ctl(set, EPOLL_CTL_ADD, fds[i], &event)) fail("epoll_ctl");
    }

  if ((value = option(argc, argv, "threads"))) {
    for (int i = 0; i < atoi(value); i++) {
      pthread_t thread;
      if (pthread_create(&thread, NULL, accept_for_ever, &fds[0])) fail("pthread_create");
    }
    for (;;) pause();
  }
  int serving = 1;
  while (serving) {
    if (set >= 0) {
      struct epoll_event event;
      if (epoll_wait(set, &event, 1, -1) == 1 && event.data.u64 != 0x1122334455667788) fail("the data changed");
    } else if (!strcmp(mode, "poll")) {
      struct pollfd polled[2] = {{fds[0], POLLIN, 0}, {count > 1 ? fds[1] : -1, POLLIN, 0}};
      poll(polled, 2, -1);
    } else if (!strcmp(mode, "select")) {
      fd_set readable;
      FD_ZERO(&readable);
      for (int i = 0; i < count; i++) FD_SET(fds[i], &readable);
      select(fds[count - 1] + 1, &readable, NULL, NULL, NULL);
    }
    for (int i = 0; i < count && serving; i++) serving = take(fds[i], !nonblock);
  }
  for (int i = 0; i < count; i++) close(fds[i]);
  fprintf(stderr, "closed the listener\n");
  for (;;) pause();
}
