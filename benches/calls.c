// What a system call costs that nobody watches: calls [allow-all]
// Prints the nanoseconds of one getppid and of one read and write of a byte, the least of many rounds.
// With `allow-all` a filter stands before them that allows everything with its first instruction.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 200000, ROUNDS = 25 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static int file;
static void getppid_call(void) { syscall(SYS_getppid); }
static void read_call(void) {
  char byte;
  if (read(file, &byte, 1) < 0) perror("read");
}
static void write_call(void) {
  if (write(file, "x", 1) < 0) perror("write");
}

static double least(void (*call)(void)) {
  double best = 1e18;
  for (int round = 0; round < ROUNDS; round++) {
    double begin = now();
    for (int i = 0; i < CALLS; i++) call();
    double each = (now() - begin) / CALLS;
    if (each < best) best = each;
  }
  return best;
}

int main(int argc, char **argv) {
  (void)argv;
  if (argc > 1) {
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
      perror("cannot install a filter");
      return 1;
    }
  }
  file = open("/dev/zero", O_RDWR);
  double results[] = {least(getppid_call), least(read_call), least(write_call)};
  printf("ns getppid %.1f read %.1f write %.1f\n", results[0], results[1], results[2]);
  fflush(stdout);
  pause(); // As a worker it would only be started again.
}
