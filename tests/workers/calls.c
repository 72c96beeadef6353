// What the kernel answers for a listening socket, call by call: `calls ADDRESS PORT FILE` writes a line for each;
// an ADDRESS with a slash is the path of a Unix socket.
// Run alone and behind a master, the lines must be the same.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static FILE *out;
static const char *state = "";
static struct sockaddr_storage at;
static socklen_t at_len;

static void say(const char *what, long ret, const char *more, ...) {
    int failed = ret < 0 ? errno : 0;
    fprintf(out, "%s: %s = %ld %s", state, what, ret, failed ? strerrorname_np(failed) : "");
    va_list args;
    va_start(args, more);
    if (ret >= 0) vfprintf(out, more, args);
    va_end(args);
    fprintf(out, "\n");
    fflush(out);
}

// Numbers of descriptors differ, so only whether there is one is said, and it is closed.
static int made(const char *what, int fd) {
    say(what, fd < 0 ? -1 : 0, "");
    return fd;
}

#define CALL(what, call) (errno = 0, say(what, call, ""))

struct option { const char *name; int level, option, is_stable; };
#define O(level, option) {#option, level, option, 1}
static const struct option options[] = {
    O(SOL_SOCKET, SO_TYPE), O(SOL_SOCKET, SO_PROTOCOL), O(SOL_SOCKET, SO_DOMAIN), O(SOL_SOCKET, SO_ACCEPTCONN),
    O(SOL_SOCKET, SO_ERROR), O(SOL_SOCKET, SO_REUSEADDR), O(SOL_SOCKET, SO_REUSEPORT), O(SOL_SOCKET, SO_KEEPALIVE),
    O(SOL_SOCKET, SO_LINGER), O(SOL_SOCKET, SO_BROADCAST), O(SOL_SOCKET, SO_OOBINLINE), O(SOL_SOCKET, SO_PRIORITY),
    O(SOL_SOCKET, SO_RCVLOWAT), O(SOL_SOCKET, SO_SNDLOWAT), O(SOL_SOCKET, SO_PASSCRED), O(SOL_SOCKET, SO_PEERCRED),
    O(SOL_SOCKET, SO_TIMESTAMP), O(SOL_SOCKET, SO_RCVBUF), O(SOL_SOCKET, SO_SNDBUF), O(SOL_SOCKET, SO_RCVTIMEO),
    O(SOL_SOCKET, SO_DONTROUTE), O(SOL_SOCKET, 9999),
    O(IPPROTO_TCP, TCP_NODELAY), O(IPPROTO_TCP, TCP_MAXSEG), O(IPPROTO_TCP, TCP_CORK),
    O(IPPROTO_TCP, TCP_KEEPIDLE), O(IPPROTO_TCP, TCP_DEFER_ACCEPT), O(IPPROTO_TCP, TCP_FASTOPEN),
    O(IPPROTO_TCP, TCP_SYNCNT), O(IPPROTO_TCP, TCP_USER_TIMEOUT), O(IPPROTO_TCP, 9999),
    O(IPPROTO_IP, IP_TOS), O(IPPROTO_IP, IP_TTL), O(IPPROTO_IPV6, IPV6_V6ONLY), O(IPPROTO_UDP, 1), O(9999, 1),
};

static void get(int fd, const struct option *o, const char *how, socklen_t room) {
    char what[128];
    unsigned char value[256];
    memset(value, 0xaa, sizeof value);
    socklen_t len = room;
    snprintf(what, sizeof what, "getsockopt %s%s", o->name, how);
    errno = 0;
    int ret = getsockopt(fd, o->level, o->option, value, &len);
    say(what, ret, "len %u value %02x%02x%02x%02x %02x", len, value[3], value[2], value[1], value[0], value[4]);
}

static void option_battery(int fd) {
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) get(fd, &options[i], "", 8);
    static const struct { const char *how; socklen_t room; } rooms[] = {
        {" in 0", 0}, {" in 1", 1}, {" in 3", 3}, {" in 4", 4}, {" in 200", 200}, {" in -1", -1}};
    for (size_t i = 0; i < 4; i++)
        for (size_t r = 0; r < sizeof rooms / sizeof *rooms; r++) get(fd, &options[i], rooms[r].how, rooms[r].room);
    socklen_t len = 4;
    int value = 0;
    CALL("getsockopt SO_ACCEPTCONN to null", getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, NULL, &len));
    CALL("getsockopt SO_ACCEPTCONN with null length", getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, NULL));
    CALL("getsockopt SO_TYPE to null", getsockopt(fd, SOL_SOCKET, SO_TYPE, NULL, &len));
    CALL("setsockopt SO_TYPE", setsockopt(fd, SOL_SOCKET, SO_TYPE, &value, 4));
    CALL("setsockopt SO_ACCEPTCONN", setsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, 4));
    CALL("setsockopt SO_KEEPALIVE in 1", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, 1));
    CALL("setsockopt SO_KEEPALIVE from null", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, NULL, 4));
    CALL("setsockopt 9999", setsockopt(fd, SOL_SOCKET, 9999, &value, 4));
}

static void change_options(int fd) {
    int one = 1, many = 37;
    CALL("setsockopt SO_KEEPALIVE", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, 4));
    CALL("setsockopt TCP_NODELAY", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, 4));
    CALL("setsockopt TCP_KEEPIDLE", setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &many, 4));
    CALL("syscall setsockopt IP_TTL", syscall(SYS_setsockopt, fd, IPPROTO_IP, IP_TTL, &many, 4));
    static const struct option changed[] = {O(SOL_SOCKET, SO_KEEPALIVE), O(IPPROTO_TCP, TCP_NODELAY),
                                            O(IPPROTO_TCP, TCP_KEEPIDLE), O(IPPROTO_IP, IP_TTL)};
    for (size_t i = 0; i < 4; i++) get(fd, &changed[i], " changed", 4);
    int got = 0;
    socklen_t len = 4;
    errno = 0;
    long ret = syscall(SYS_getsockopt, fd, IPPROTO_IP, IP_TTL, &got, &len);
    say("syscall getsockopt IP_TTL", ret, "%d", got);
}

static void name_battery(int fd) {
    static const struct { const char *how; socklen_t room; } rooms[] = {
        {"0", 0}, {"1", 1}, {"2", 2}, {"8", 8}, {"16", 16}, {"100", 100}, {"-1", -1}};
    char what[64];
    for (size_t r = 0; r < sizeof rooms / sizeof *rooms; r++) {
        unsigned char name[128];
        memset(name, 0xaa, sizeof name);
        socklen_t len = rooms[r].room;
        snprintf(what, sizeof what, "getsockname in %s", rooms[r].how);
        errno = 0;
        int ret = getsockname(fd, (void *)name, &len);
        say(what, ret, "len %u %02x%02x %02x%02x %02x %02x %02x", len, name[0], name[1], name[2], name[3], name[7],
            name[15], name[16]);
    }
    socklen_t len = at_len;
    struct sockaddr_storage peer;
    CALL("getsockname to null", getsockname(fd, NULL, &len));
    CALL("getsockname with null length", getsockname(fd, (void *)&peer, NULL));
    CALL("getpeername", getpeername(fd, (void *)&peer, &len));
    CALL("getpeername to null", getpeername(fd, NULL, &len));
    CALL("getpeername with null length", getpeername(fd, (void *)&peer, NULL));
    CALL("syscall getpeername", syscall(SYS_getpeername, fd, &peer, &len));
    len = -1;
    CALL("getpeername in -1", getpeername(fd, (void *)&peer, &len));
}

static void file_battery(int fd) {
    struct stat found;
    errno = 0;
    int ret = fstat(fd, &found);
    say("fstat", ret, "socket %d size %ld", S_ISSOCK(found.st_mode), (long)found.st_size);
    CALL("lseek", lseek(fd, 0, SEEK_CUR));
    CALL("isatty", isatty(fd) - 1);
    CALL("fsync", fsync(fd));
    CALL("ftruncate", ftruncate(fd, 0));
    char byte = 0;
    CALL("pread", pread(fd, &byte, 1, 0));
    CALL("pwrite", pwrite(fd, &byte, 1, 0));
    errno = 0;
    void *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    say("mmap", mapped == MAP_FAILED ? -1 : 0, "");
    CALL("fchdir", fchdir(fd));
    struct flock lock = {.l_type = F_WRLCK};
    CALL("fcntl F_SETFD", fcntl(fd, F_SETFD, FD_CLOEXEC));
    CALL("fcntl F_GETFD", fcntl(fd, F_GETFD));
    CALL("fcntl F_SETFL", fcntl(fd, F_SETFL, O_NONBLOCK));
    CALL("fcntl F_GETFL", fcntl(fd, F_GETFL));
    struct pollfd polled = {fd, POLLIN, 0};
    int ready = poll(&polled, 1, 0);
    say("poll", ready, "revents %x", polled.revents);
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {EPOLLIN, {0}};
    CALL("epoll_ctl", epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
    CALL("epoll_ctl again", epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
    CALL("epoll_wait", epoll_wait(set, &event, 1, 0));
    CALL("epoll_ctl to remove it", epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
    close(set);
    CALL("fcntl F_GETOWN", fcntl(fd, F_GETOWN));
    CALL("fcntl F_SETLK", fcntl(fd, F_SETLK, &lock));
    CALL("fcntl F_GETPIPE_SZ", fcntl(fd, F_GETPIPE_SZ));
    CALL("fcntl 9999", fcntl(fd, 9999, 0));
    CALL("syscall fcntl F_GETFL", syscall(SYS_fcntl, fd, F_GETFL));
    int count = -1, on = 1;
    CALL("ioctl FIONBIO", ioctl(fd, FIONBIO, &on));
    CALL("ioctl FIOCLEX", ioctl(fd, FIOCLEX));
    struct winsize size;
    CALL("ioctl TIOCGWINSZ", ioctl(fd, TIOCGWINSZ, &size));
    CALL("ioctl 9999", ioctl(fd, 9999, &count));
    char text[8];
    struct iovec piece = {text, sizeof text};
    CALL("read", read(fd, text, sizeof text));
    CALL("readv", readv(fd, &piece, 1));
    CALL("recv", recv(fd, text, sizeof text, MSG_DONTWAIT));
    CALL("recv MSG_PEEK", recv(fd, text, sizeof text, MSG_DONTWAIT | MSG_PEEK));
    CALL("send of nothing", send(fd, text, 0, MSG_DONTWAIT | MSG_NOSIGNAL));
    CALL("accept4 with unknown flags", accept4(fd, NULL, NULL, 1 << 30));
    CALL("accept", accept(fd, NULL, NULL));
    CALL("accept4", accept4(fd, NULL, NULL, SOCK_CLOEXEC));
    CALL("syscall accept4", syscall(SYS_accept4, fd, NULL, NULL, 0));
}

static void copies(int fd) {
    int copy = made("dup", dup(fd));
    get(copy, &options[3], " of a copy", 4);
    CALL("dup2 onto itself", dup2(copy, copy) < 0 ? -1 : 0);
    CALL("dup3 onto itself", dup3(copy, copy, 0));
    CALL("dup3 with unknown flags", dup3(fd, copy, 1));
    get(copy, &options[3], " after a failed dup3", 4);
    CALL("dup2 of nothing onto a copy", dup2(999, copy));
    get(copy, &options[3], " after a failed dup2", 4);
    CALL("dup2 beyond the limit", dup2(fd, 1 << 30));
    CALL("close of a copy", close(copy));
    CALL("close of it again", close(copy));
    get(copy, &options[0], " of what is closed", 4);
    copy = made("fcntl F_DUPFD_CLOEXEC", fcntl(fd, F_DUPFD_CLOEXEC, 50));
    CALL("its number", copy);
    CALL("syscall close", syscall(SYS_close, copy));
    CALL("accept on it", accept(copy, NULL, NULL));
    copy = made("syscall dup", syscall(SYS_dup, fd));
    get(copy, &options[3], " of a copy by number", 4);
    CALL("close_range", close_range(copy, copy, 0));
    CALL("close_range backwards", close_range(9, 8, 0));
    CALL("close_range with unknown flags", close_range(9, 9, 1 << 20));
    CALL("close after close_range", close(copy));
    // The number is another file's now, which answers for itself.
    int file = open("/dev/null", O_RDONLY);
    CALL("getpeername of a file with that number", getpeername(file, (void *)&at, &(socklen_t){16}));
    CALL("its number is that", file == copy);
    CALL("close of that file", close(file));
    copy = dup(fd);
    FILE *stream = fdopen(copy, "r");
    CALL("fclose", fclose(stream));
    CALL("close after fclose", close(copy));
    file = open("/dev/null", O_RDONLY);
    CALL("accept on a file with that number", accept(file, NULL, NULL));
    close(file);
    copy = dup(fd);
    int other = open("/dev/null", O_RDONLY);
    CALL("dup2 of a file onto a copy", dup2(other, copy) < 0 ? -1 : 0);
    CALL("getpeername of what is there now", getpeername(copy, (void *)&at, &(socklen_t){16}));
    close(other);
    close(copy);
    // All but the socket and the file that is written.
    int last = fileno(out) > fd ? fileno(out) : fd;
    closefrom(last + 1);
    get(fd, &options[3], " after closefrom", 4);
    CALL("close_range of the rest", close_range(last + 1, ~0U, 0));
    get(fd, &options[3], " after close_range", 4);
    get(fd, &options[5], " after close_range", 4);
    for (int number = 100; number < 300; number++)
        if (number != fd) dup2(fileno(out), number);
    get(fd, &options[3], " after 200 dup2", 4);
    get(fd, &options[5], " after 200 dup2", 4);
    for (int number = 100; number < 300; number++)
        if (number != fd) close(number);
    get(fd, &options[5], " after 200 close", 4);
}

static int bound(void) {
    int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (at.ss_family == AF_UNIX) unlink(((struct sockaddr_un *)&at)->sun_path);
    if (bind(fd, (void *)&at, at_len) < 0) perror("bind"), exit(1);
    return fd;
}

static int listening(void) {
    int fd = bound();
    if (listen(fd, 16) < 0) perror("listen"), exit(1);
    return fd;
}

static void answer(int fd, const char *what) {
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    struct pollfd polled = {fd, POLLIN, 0};
    int ready = poll(&polled, 1, 5000);
    say("poll", ready, "revents %x", polled.revents);
    int connection = accept(fd, (void *)&peer, &len);
    say(what, connection < 0 ? -1 : 0, "len %u family %u", len, peer.ss_family);
    char byte = 0;
    int got = -1;
    // What was sent may not be here yet.
    fcntl(connection, F_SETFL, 0);
    errno = 0;
    got = read(connection, &byte, 1);
    say("read", got, "%c", byte);
    CALL("shutdown of a connection", shutdown(connection, SHUT_RDWR));
    close(connection);
}

static int client(void) {
    int fd = socket(at.ss_family, SOCK_STREAM, 0);
    if (connect(fd, (void *)&at, at_len) < 0) perror("connect"), exit(1);
    if (write(fd, "x", 1) != 1) perror("write"), exit(1);
    return fd;
}

static void serve_one(int fd, const char *what) {
    int one = client();
    answer(fd, what);
    close(one);
}

static void serving(int fd) {
    serve_one(fd, "accept of a client");
    int ended, child = fork();
    if (child == 0) {
        closefrom(fileno(out) > fd ? fileno(out) + 1 : fd + 1);
        close(fd);
        _exit(0);
    }
    waitpid(child, &ended, 0);
    serve_one(fd, "accept after a child closed its copy");
    child = vfork();
    if (child == 0) {
        struct sockaddr_storage name;
        getsockname(fd, (void *)&name, &(socklen_t){sizeof name});
        close(fd);
        _exit(0);
    }
    waitpid(child, &ended, 0);
    serve_one(fd, "accept after a vforked child closed its copy");
}

static int port(const void *name) {
    return ((const struct sockaddr_in *)name)->sin_port;
}

/* Whoever reads /proc/PID/fd, as the master does to see what is still open, holds each file for a moment (fget_task in
   fs/proc/fd.c), and a connection that this process has closed lives on for so long, with its two ends. */
#define ONCE_FREE(call)                                                                                  \
    ({                                                                                                   \
        long result;                                                                                     \
        int attempts = 0;                                                                                \
        while ((result = call) < 0 && errno == EADDRNOTAVAIL && attempts++ < 100) usleep(1000);          \
        result;                                                                                          \
    })

static void clients(void) {
    state = "bound, then a client";
    int other = socket(at.ss_family, SOCK_STREAM, 0);
    struct sockaddr_storage there = at, name;
    ((struct sockaddr_in *)&there)->sin_port = 0;
    bind(other, (void *)&there, at_len);
    listen(other, 4);
    getsockname(other, (void *)&there, &(socklen_t){sizeof there});
    int fd = bound();
    fcntl(fd, F_SETFL, 0);
    CALL("connect", connect(fd, (void *)&there, at_len));
    CALL("getpeername", getpeername(fd, (void *)&name, &(socklen_t){sizeof name}));
    CALL("its port", port(&name) == port(&there));
    CALL("getsockname", getsockname(fd, (void *)&name, &(socklen_t){sizeof name}));
    CALL("its port", port(&name) == port(&at));
    CALL("listen", listen(fd, 4));
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
    fd = bound();
    fcntl(fd, F_SETFL, 0);
    CALL("syscall connect", ONCE_FREE(syscall(SYS_connect, fd, &there, at_len)));
    CALL("getpeername", getpeername(fd, (void *)&name, &(socklen_t){sizeof name}));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
    fd = bound();
    fcntl(fd, F_SETFL, 0);
    CALL("sendto with MSG_FASTOPEN", ONCE_FREE(sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&there, at_len)));
    CALL("getpeername", getpeername(fd, (void *)&name, &(socklen_t){sizeof name}));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
    close(other);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = v4.sin_port};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    if (strchr(argv[1], '/')) {
        strncpy(local.sun_path, argv[1], sizeof local.sun_path - 1);
        memcpy(&at, &local, at_len = offsetof(struct sockaddr_un, sun_path) + strlen(local.sun_path) + 1);
    } else if (inet_pton(AF_INET, argv[1], &v4.sin_addr) == 1) {
        memcpy(&at, &v4, at_len = sizeof v4);
    } else if (inet_pton(AF_INET6, argv[1], &v6.sin6_addr) == 1) {
        memcpy(&at, &v6, at_len = sizeof v6);
    } else {
        return 2;
    }
    int file = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    // Out of the way of what is tried.
    out = fdopen(fcntl(file, F_DUPFD_CLOEXEC, 400), "w");
    close(file);
    if (!out) perror(argv[3]), exit(1);

    state = "a socket";
    int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_storage wrong = at;
    wrong.ss_family = 77;
    CALL("bind in an unknown family", bind(fd, (void *)&wrong, at_len));
    // Of a path that would be the name of another file.
    if (at.ss_family != AF_UNIX) CALL("bind with a short address", bind(fd, (void *)&at, 4));
    CALL("bind with no address", bind(fd, NULL, at_len));
    CALL("bind with a long address", bind(fd, (void *)&at, 4096));
    CALL("bind of a file", bind(fileno(out), (void *)&at, at_len));
    CALL("bind of nothing", bind(999, (void *)&at, at_len));
    CALL("listen of a file", listen(fileno(out), 1));
    CALL("listen of nothing", listen(999, 1));
    wrong = at;
    if (at.ss_family == AF_INET) inet_pton(AF_INET, "192.0.2.1", &((struct sockaddr_in *)&wrong)->sin_addr);
    if (at.ss_family == AF_INET6) inet_pton(AF_INET6, "2001:db8::1", &((struct sockaddr_in6 *)&wrong)->sin6_addr);
    if (at.ss_family == AF_UNIX) strcpy(((struct sockaddr_un *)&wrong)->sun_path, "/proc/there/is/no/such");
    CALL("bind where this machine is not", bind(fd, (void *)&wrong, at_len));
    option_battery(fd);
    file_battery(fd);
    close(fd);

    state = "bound";
    fd = bound();
    CALL("bind again", bind(fd, (void *)&at, at_len));
    int second = socket(at.ss_family, SOCK_STREAM, 0);
    CALL("bind of another", bind(second, (void *)&at, at_len));
    close(second);
    option_battery(fd);
    change_options(fd);
    name_battery(fd);
    file_battery(fd);
    CALL("shutdown", shutdown(fd, SHUT_RDWR));
    CALL("syscall shutdown", syscall(SYS_shutdown, fd, SHUT_RDWR));
    copies(fd);
    CALL("close", close(fd));
    CALL("close again", close(fd));

    if (at.ss_family != AF_UNIX) clients();
    int one = 1;

    state = "listening";
    fd = listening();
    CALL("bind", bind(fd, (void *)&at, at_len));
    CALL("listen again", listen(fd, 32));
    second = socket(at.ss_family, SOCK_STREAM, 0);
    setsockopt(second, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    CALL("bind of another", bind(second, (void *)&at, at_len));
    close(second);
    option_battery(fd);
    change_options(fd);
    name_battery(fd);
    file_battery(fd);
    CALL("connect", connect(fd, (void *)&at, at_len));
    CALL("syscall connect", syscall(SYS_connect, fd, &at, at_len));
    copies(fd);
    serving(fd);
    CALL("shutdown for writing", shutdown(fd, SHUT_WR));
    CALL("shutdown in an unknown way", shutdown(fd, 9));
    get(fd, &options[3], " after that", 4);
    CALL("shutdown", shutdown(fd, SHUT_RDWR));
    get(fd, &options[3], " after shutdown", 4);
    CALL("accept after shutdown", accept(fd, NULL, NULL));
    CALL("close", close(fd));
    get(fd, &options[3], " after close", 4);

    state = "listening where nobody bound";
    fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CALL("listen", listen(fd, 4));
    get(fd, &options[3], "", 4);
    CALL("accept", accept(fd, NULL, NULL));
    close(fd);

    state = "a stream of datagrams";
    // Under a name of its own: a master takes its socket file away when nobody has wanted it for a while; alone it stays.
    if (at.ss_family == AF_UNIX) {
        struct sockaddr_un *name = (void *)&at;
        strcat(name->sun_path, "d");
        at_len++;
        unlink(name->sun_path);
    }
    fd = socket(at.ss_family, SOCK_DGRAM, 0);
    CALL("bind", bind(fd, (void *)&at, at_len));
    CALL("listen", listen(fd, 4));
    CALL("accept", accept(fd, NULL, NULL));
    get(fd, &options[0], "", 4);
    close(fd);

    state = "umask";
    CALL("umask", umask(027));
    CALL("umask again", umask(022));

    fprintf(out, "end\n");
    fclose(out);
    pause();
    return 0;
}
