/* The limit: sends pre-encoded XADD commands over one socket, with several batches in flight, and
 * reads the replies. It does not fetch, parse, resume or lock anything.
 *
 * cc -O2 raw_redis.c -o raw_redis
 * ./raw_redis PORT STREAM CHATS IDS_PER_MESSAGE
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RUN_ID "01a203cd-0699-7160-9303-3c784fb6d2b2"
/* The size of a batch in bytes, and the number of batches without a reply. */
#define BATCH (64 * 1024)
#define IN_FLIGHT 4

static void die(const char *what) {
  perror(what);
  exit(1);
}

static char *encoded;
static size_t length, room;

static void put(const char *text, size_t bytes) {
  if (length + bytes > room) {
    room = (length + bytes) * 2;
    encoded = realloc(encoded, room);
    if (!encoded) die("memory");
  }
  memcpy(encoded + length, text, bytes);
  length += bytes;
}

static void put_bulk(const char *text, size_t bytes) {
  char head[32];
  put(head, (size_t)sprintf(head, "$%zu\r\n", bytes));
  put(text, bytes);
  put("\r\n", 2);
}

static void put_entry(const char *stream, long first, int ids) {
  char *value = malloc((size_t)ids * 32 + 2), *end = value;
  if (ids > 1) *end++ = '[';
  for (int i = 0; i < ids; i++) {
    if (i) *end++ = ',';
    end += sprintf(end, ids > 1 ? "\"%lld@c.us\"" : "%lld@c.us", 4900000000000LL + (first + i) * 7919);
  }
  if (ids > 1) *end++ = ']';
  put("*9\r\n", 4);
  put_bulk("XADD", 4);
  put_bulk(stream, strlen(stream));
  put_bulk("*", 1);
  if (ids > 1) put_bulk("chat_ids", 8);
  else put_bulk("chat_id", 7);
  put_bulk(value, (size_t)(end - value));
  put_bulk("label_id", 8);
  put_bulk("1", 1);
  put_bulk("run_id", 6);
  put_bulk(RUN_ID, strlen(RUN_ID));
  free(value);
}

/* Reads a number of replies: "$15\r\n1763800000000-0\r\n", of two lines each. */
static void take_replies(int socket, long count) {
  static char buffer[64 * 1024];
  static long lines;
  long wanted = lines + count * 2;
  static long seen;
  while (seen < wanted) {
    ssize_t got = read(socket, buffer, sizeof buffer);
    if (got <= 0) die("read");
    for (ssize_t i = 0; i < got; i++) {
      if (buffer[i] == '-' && (i == 0 || buffer[i - 1] == '\n')) {
        fprintf(stderr, "raw_redis: refused\n");
        exit(1);
      }
      seen += buffer[i] == '\n';
    }
  }
  lines = wanted;
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  const char *stream = arguments[2];
  long chats = atol(arguments[3]);
  int per_message = atoi(arguments[4]);
  long messages = (chats + per_message - 1) / per_message, batches = 0;
  size_t *ends = malloc(sizeof *ends * (size_t)(messages + 1));
  long *counts = malloc(sizeof *counts * (size_t)(messages + 1));
  size_t begin = 0;
  for (long i = 0, in_batch = 0; i < messages; i++) {
    long first = i * per_message, left = chats - first;
    put_entry(stream, first, left < per_message ? (int)left : per_message);
    in_batch++;
    if (length - begin >= BATCH || i + 1 == messages) {
      ends[batches] = length;
      counts[batches++] = in_batch;
      begin = length;
      in_batch = 0;
    }
  }
  int connection = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(arguments[1]))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(connection, (struct sockaddr *)&address, sizeof address)) die("connect");
  setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  puts("ready");
  fflush(stdout);
  if (getchar() == EOF) return 1;
  size_t sent = 0;
  for (long batch = 0; batch < batches; batch++) {
    if (batch >= IN_FLIGHT) take_replies(connection, counts[batch - IN_FLIGHT]);
    while (sent < ends[batch]) {
      ssize_t wrote = write(connection, encoded + sent, ends[batch] - sent);
      if (wrote <= 0) die("write");
      sent += (size_t)wrote;
    }
  }
  for (long batch = batches > IN_FLIGHT ? batches - IN_FLIGHT : 0; batch < batches; batch++)
    take_replies(connection, counts[batch]);
  return 0;
}
