// Runs a program as a container might: confine no-CALL|outer PROGRAM [ARG]...
//   no-memfd, no-prctl, no-pidfd, no-socketpair  one call that every master makes is forbidden
//   no-getfd  pidfd_getfd and pidfd_open's relatives that ptrace guards are forbidden (Docker's profile)
//   outer     a supervisor of system calls is there already
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
  const char *name;
  int call;
} forbidden[] = {
    {"no-getfd", __NR_pidfd_getfd}, {"no-memfd", __NR_memfd_create},     {"no-prctl", __NR_prctl},
    {"no-pidfd", __NR_pidfd_open},  {"no-socketpair", __NR_socketpair},
};

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  int outer = !strcmp(argv[1], "outer");
  int call = outer ? __NR_acct : -1;
  for (unsigned i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
    if (!strcmp(argv[1], forbidden[i].name)) call = forbidden[i].call;
  if (call < 0) return 2;
  // The outer supervisor asks to hear of a call that nobody makes, so it never has to answer.
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, outer ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof code / sizeof *code, code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, outer ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0, &program);
  if (fd < 0) {
    perror("seccomp");
    return 1;
  }
  if (outer) fcntl(fd, F_SETFD, 0);
  execv(argv[2], argv + 2);
  perror(argv[2]);
  return 127;
}
