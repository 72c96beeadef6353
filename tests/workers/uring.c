// A server that accepts through io_uring, past libc and past seccomp: uring PORT
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (argc < 2) return 2;
  addr.sin_port = htons(atoi(argv[1]));
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&addr, sizeof addr) || listen(listener, 511)) {
    perror("listen");
    return 1;
  }
  struct io_uring_params params = {0};
  int ring = syscall(SYS_io_uring_setup, 4, &params);
  if (ring < 0) {
    fprintf(stderr, "no io_uring here: %s\n", strerror(errno));
    for (;;) pause();
  }
  size_t sq_size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
  size_t cq_size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  char *sq = mmap(0, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  char *cq = mmap(0, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
  struct io_uring_sqe *sqes =
      mmap(0, params.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
  unsigned *tail = (unsigned *)(sq + params.sq_off.tail), *array = (unsigned *)(sq + params.sq_off.array);
  unsigned *head = (unsigned *)(cq + params.cq_off.head), mask = params.sq_entries - 1;
  unsigned cq_mask = *(unsigned *)(cq + params.cq_off.ring_mask);
  struct io_uring_cqe *cqes = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
  for (;;) {
    unsigned index = *tail & mask;
    memset(&sqes[index], 0, sizeof *sqes);
    sqes[index].opcode = IORING_OP_ACCEPT;
    sqes[index].fd = listener;
    array[index] = index;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0) continue;
    int client = cqes[*head & cq_mask].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    if (client < 0) {
      fprintf(stderr, "accept through io_uring: %s\n", strerror(-client));
      for (;;) pause();
    }
    char request[4096], *slot = getenv("MAITRED_SLOT");
    if (read(client, request, sizeof request) > 0) dprintf(client, "HTTP/1.1 200 OK\r\n\r\n%s", slot ? slot : "-");
    close(client);
  }
}
