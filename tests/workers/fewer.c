/* A new binary that goes on with few descriptors: what was tried could be had, and then not. REAL is the binary, and
   the file FEWER says how many more than those that were passed may be open from then on. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int main(int argc, char **argv) {
  (void)argc;
  const char *order = getenv("MAITRED_UPGRADE"), *real = getenv("REAL"), *fewer = getenv("FEWER");
  if (order && real && fewer && !strncmp(order, "resume", 6)) {
    FILE *file = fopen(fewer, "r");
    int more, number = 0;
    if (!file || fscanf(file, "%d", &more) != 1) return 1;
    fclose(file);
    for (; more > 0; number++) more -= fcntl(number, F_GETFD) < 0;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = number;
    if (setrlimit(RLIMIT_NOFILE, &limit)) return 1;
  }
  execv(real, argv);
  return 1;
}
