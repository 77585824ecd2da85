/* The limit: publishes generated chat ids with librabbitmq, persistent, mandatory and with confirms,
 * with at most a window of unconfirmed messages. It does not fetch, parse, resume or lock anything.
 *
 * cc -O2 librabbitmq.c -lrabbitmq -o librabbitmq
 * ./librabbitmq PORT VHOST QUEUE QUEUE_TYPE CHATS WINDOW IDS_PER_MESSAGE
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUN_ID "01a203cd-0699-7160-9303-3c784fb6d2b2"

static void die(const char *what) {
  fprintf(stderr, "librabbitmq: %s\n", what);
  exit(1);
}

static void check(amqp_rpc_reply_t reply, const char *what) {
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) die(what);
}

/* Reads the confirms that have arrived, and waits for the first. Returns the newest message up to which
 * all are confirmed. Brokers confirm in order here, singly or in multiples. Single confirms that are out
 * of order are counted. */
static long take_confirms(amqp_connection_state_t connection, int waits) {
  long taken = 0;
  static unsigned long long newest = 0;
  struct timeval none = {0, 0};
  for (;;) {
    amqp_frame_t frame;
    amqp_maybe_release_buffers(connection);
    int status = amqp_simple_wait_frame_noblock(connection, &frame, waits ? NULL : &none);
    if (status == AMQP_STATUS_TIMEOUT) return taken;
    if (status != AMQP_STATUS_OK) die("the connection broke");
    if (frame.frame_type != AMQP_FRAME_METHOD) continue;
    if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD) die("not an ack");
    amqp_basic_ack_t *ack = frame.payload.method.decoded;
    if (ack->multiple) {
      taken += (long)(ack->delivery_tag - newest);
      newest = ack->delivery_tag;
    } else {
      taken += 1;
      if (ack->delivery_tag > newest) newest += 1;
    }
    waits = 0;
  }
}

int main(int argc, char **argv) {
  if (argc != 8) die("PORT VHOST QUEUE QUEUE_TYPE CHATS WINDOW IDS_PER_MESSAGE");
  int port = atoi(argv[1]);
  long chats = atol(argv[5]), window = atol(argv[6]), per_message = atol(argv[7]);
  amqp_connection_state_t connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  if (amqp_socket_open(socket, "127.0.0.1", port)) die("cannot connect");
  check(amqp_login(connection, argv[2], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"),
        "login");
  amqp_channel_open(connection, 1);
  check(amqp_get_rpc_reply(connection), "channel");
  amqp_table_entry_t entry = {amqp_cstring_bytes("x-queue-type"),
                              {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_cstring_bytes(argv[4])}}};
  amqp_table_t arguments = {1, &entry};
  amqp_bytes_t queue = amqp_cstring_bytes(argv[3]);
  amqp_queue_declare(connection, 1, queue, 0, 1, 0, 0, arguments);
  check(amqp_get_rpc_reply(connection), "queue");
  amqp_confirm_select(connection, 1);
  check(amqp_get_rpc_reply(connection), "confirms");

  amqp_basic_properties_t properties = {0};
  properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                      AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG |
                      AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_APP_ID_FLAG;
  properties.content_type = amqp_cstring_bytes("application/json");
  properties.delivery_mode = 2;
  properties.expiration = amqp_cstring_bytes("604800000");
  properties.type = amqp_cstring_bytes("labelcast.chat");
  properties.app_id = amqp_cstring_bytes("labelcast");

  char *payload = malloc((size_t)per_message * 32 + 256);
  char message_id[128];
  long unconfirmed = 0;
  for (long first = 0; first < chats; first += per_message) {
    char *end = payload;
    if (per_message == 1) {
      end += sprintf(end, "{\"chat_id\":\"%lld@c.us\"", 4900000000000LL + first * 7919);
      sprintf(message_id, RUN_ID ":%lld@c.us", 4900000000000LL + first * 7919);
    } else {
      end += sprintf(end, "{\"chat_ids\":[");
      for (long chat = first; chat < first + per_message && chat < chats; chat++)
        end += sprintf(end, "%s\"%lld@c.us\"", chat > first ? "," : "",
                       4900000000000LL + chat * 7919);
      end += sprintf(end, "]");
      sprintf(message_id, RUN_ID ":%ld", first);
    }
    end += sprintf(end, ",\"label_id\":\"1\",\"run_id\":\"" RUN_ID "\"}");
    properties.message_id = amqp_cstring_bytes(message_id);
    amqp_bytes_t body = {(size_t)(end - payload), payload};
    if (amqp_basic_publish(connection, 1, amqp_empty_bytes, queue, 1, 0, &properties, body))
      die("publish");
    unconfirmed += 1;
    unconfirmed -= take_confirms(connection, unconfirmed >= window);
  }
  while (unconfirmed > 0) unconfirmed -= take_confirms(connection, 1);
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  return 0;
}
