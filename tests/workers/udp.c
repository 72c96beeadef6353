// A UDP server that says in which process it is, for static linking.
//   udp PORT
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int datagrams = socket(AF_INET, SOCK_DGRAM, 0);
  if (datagrams < 0 || bind(datagrams, (struct sockaddr *)&at, sizeof at) != 0) {
    perror("bind");
    return 1;
  }
  const char *slot = getenv("MAITRED_SLOT");
  for (;;) {
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    char buffer[2048];
    if (recvfrom(datagrams, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &length) < 0) continue;
    int n = snprintf(buffer, sizeof buffer, "slot %s process %d", slot ? slot : "-", (int)getpid());
    sendto(datagrams, buffer, n, 0, (struct sockaddr *)&from, length);
  }
}
