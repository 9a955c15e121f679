// A closed-loop load generator for kvorum's native client frames: one thread with epoll.
//
//   loadgen -p PORT,PORT,... -H HELLO [options] STEP ... | -
//
//   -p  ports on 127.0.0.1; connections are spread over them in turn
//   -H  the frame that begins every connection, in hexadecimal; its answer is skipped
//   -P  process ids whose CPU time is charged to the operations
//   -t  table id, 8 bytes in hexadecimal (that of the table "default")
//   -k  number of keys (100000)        -v  bytes of a value (100; at least 32)
//   -r  -w  -D  r, w and durability of every request (0, 0 and 255: the table's)
//
// Each STEP prints one JSON line; "-" reads steps from the standard input, one a line, and a
// line without a step ends it:
//
//   CxD PUT WARM SECONDS    C connections, D requests in flight on each, PUT percent of them
//                           puts; WARM seconds are not counted
//   fill  learn             put every key once through each node, or get every key once (16x16)
//
// Each connection has its own slice of the keys (key number modulo C), and a key has at most one
// request in flight. The last context of every key is kept, across steps, and goes into its next
// put; so puts leave no siblings. Every value begins with its key and the number of its put, and
// every get must bring the very value that was last acknowledged. What does not is an error.
#define _GNU_SOURCE
#include "frames.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 4096,
    DEPTH_MAX = 256,
    PORTS_MAX = 64,
    PIDS_MAX = 64,
    KEY_BYTES = 16,              // k and fifteen digits
    MARK_BYTES = 28,             // of a value: key, a dash, the put's number in ten digits, a dash
    BUCKETS = 64 * 64,
};

typedef struct {
    uint8_t *context;
    uint32_t context_bytes, context_capacity;
    uint32_t written;            // number of the put that was last acknowledged; 0: none
    bool busy;                   // a request is in flight
    bool uncertain;              // a put's outcome is unknown
} key_state;

typedef struct {
    uint32_t key;
    bool in_flight, is_put;
    uint64_t sent;               // nanoseconds
    uint64_t counter;            // of a put
} call;

typedef struct {
    int fd;
    uint8_t client[8];
    uint64_t next_counter;
    uint8_t *in, *out;
    size_t in_bytes, in_capacity, out_bytes, out_sent, out_capacity;
    bool blocked;
    call *calls;                 // one per request in flight; its index is the request's number
} connection;

typedef struct {
    unsigned connections, depth;
    int put_percent;
    double warm, seconds;
    bool sequential;             // every key once
} step;

typedef struct {
    uint64_t operations, puts, siblings, errors, refused, unknown, latencies[BUCKETS];
} tally;

static unsigned key_count = 100000, value_bytes = 100;
static uint8_t *hello, *table;
static size_t hello_bytes, table_bytes;
static uint8_t r, w, durability = 255;
static uint16_t ports[PORTS_MAX];
static pid_t pids[PIDS_MAX];
static unsigned port_count, pid_count;
static key_state *keys;
static connection *connections;
static tally counts;
static uint8_t *value;
static uint64_t random_state = 88172645463325252ull;
static unsigned complaints;
static int poller;

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static uint64_t clock_ns(clockid_t which) {
    struct timespec now;
    if (clock_gettime(which, &now)) return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// CPU time of the servers with all their threads, in nanoseconds.
static uint64_t servers_cpu(void) {
    uint64_t total = 0;
    for (unsigned i = 0; i < pid_count; i++) {
        clockid_t clock;
        if (!clock_getcpuclockid(pids[i], &clock)) total += clock_ns(clock);
    }
    return total;
}

static void complain(const char *what, const char *detail, size_t bytes) {
    counts.errors++;
    if (complaints++ < 5) fprintf(stderr, "loadgen: %s %.*s\n", what, (int)bytes, detail);
}

// --- Latencies, in buckets of about 1.5 percent ----------------------------------------------

static unsigned bucket_of(uint64_t ns) {
    if (ns < 64) return (unsigned)ns;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    return (exponent - 5) * 64 + (unsigned)(ns >> (exponent - 6) & 63);
}

static double bucket_us(unsigned bucket) {
    if (bucket < 64) return bucket / 1e3;
    unsigned exponent = bucket / 64 + 5;
    return ((double)((64ull + bucket % 64) << (exponent - 6)) +
            (double)(1ull << (exponent - 6)) / 2) / 1e3;
}

static double percentile_us(const tally *t, double share) {
    uint64_t total = 0, below = 0;
    for (unsigned i = 0; i < BUCKETS; i++) total += t->latencies[i];
    for (unsigned i = 0; i < BUCKETS; i++)
        if ((below += t->latencies[i]) > (double)total * share) return bucket_us(i);
    for (unsigned i = BUCKETS; i--;)
        if (t->latencies[i]) return bucket_us(i);
    return 0;
}

// --- Requests --------------------------------------------------------------------------------

static void write_key(uint8_t *to, uint32_t number) {
    to[0] = 'k';
    for (int i = KEY_BYTES - 1; i > 0; i--, number /= 10) to[i] = (uint8_t)('0' + number % 10);
}

static void write_mark(uint8_t *to, uint32_t key, uint32_t put) {
    write_key(to, key);
    to[KEY_BYTES] = '-';
    for (int i = MARK_BYTES - 2; i > KEY_BYTES; i--, put /= 10) to[i] = (uint8_t)('0' + put % 10);
    to[MARK_BYTES - 1] = '-';
}

static uint8_t *room(connection *c, size_t bytes) {
    if (c->out_bytes + bytes > c->out_capacity) {
        c->out_capacity = 2 * (c->out_bytes + bytes);
        c->out = realloc(c->out, c->out_capacity);
        if (!c->out) die("realloc");
    }
    c->out_bytes += bytes;
    return c->out + c->out_bytes - bytes;
}

static uint64_t lowest_open(const connection *c, unsigned depth) {
    uint64_t lowest = c->next_counter;
    for (unsigned i = 0; i < depth; i++)
        if (c->calls[i].in_flight && c->calls[i].is_put && c->calls[i].counter < lowest)
            lowest = c->calls[i].counter;
    return lowest;
}

static void send_put(connection *c, unsigned number, unsigned depth) {
    call *made = &c->calls[number];
    key_state *key = &keys[made->key];
    size_t bytes = sizeof(put_head) + KEY_BYTES + key->context_bytes + value_bytes;
    uint8_t *at = room(c, LENGTH_BYTES + bytes);
    made->counter = c->next_counter++;
    store32(at, (uint32_t)bytes);
    at += LENGTH_BYTES;
    put_head *head = (put_head *)at;
    *head = (put_head){.kind = PUT, .partition_key_bytes = KEY_BYTES, .request = number, .w = w,
                       .durability = durability, .sloppy = 255,
                       .context_bytes = key->context_bytes, .counter = made->counter,
                       .first_sent = clock_ns(CLOCK_REALTIME) / 1000,
                       .lowest_open = lowest_open(c, depth)};
    memcpy(head->table, table, TABLE_ID_BYTES);
    memcpy(head->client, c->client, sizeof head->client);
    at += sizeof *head;
    write_key(at, made->key);
    at += KEY_BYTES;
    if (key->context_bytes) memcpy(at, key->context, key->context_bytes);
    at += key->context_bytes;
    write_mark(value, made->key, key->written + 1);
    memcpy(at, value, value_bytes);
}

static void send_get(connection *c, unsigned number) {
    size_t bytes = sizeof(get_head) + KEY_BYTES;
    uint8_t *at = room(c, LENGTH_BYTES + bytes);
    store32(at, (uint32_t)bytes);
    at += LENGTH_BYTES;
    get_head *head = (get_head *)at;
    *head = (get_head){.kind = GET, .partition_key_bytes = KEY_BYTES, .request = number, .r = r,
                       .sloppy = 255};
    memcpy(head->table, table, TABLE_ID_BYTES);
    write_key(at + sizeof *head, c->calls[number].key);
}

// A key of this connection's slice that has no request in flight; false if there is none.
static bool choose_key(const step *s, unsigned index, uint32_t *next, uint32_t *key) {
    uint32_t slice = (key_count - index + s->connections - 1) / s->connections;
    if (s->sequential) {
        *key = index + (*next)++ * s->connections;
        return *key < key_count;
    }
    do *key = index + (uint32_t)(next_random() % slice) * s->connections;
    while (keys[*key].busy);
    return true;
}

static bool issue(const step *s, unsigned index, unsigned number, uint32_t *next) {
    connection *c = &connections[index];
    uint32_t key;
    if (!choose_key(s, index, next, &key)) return false;
    bool is_put = s->put_percent == 100 || (int)(next_random() % 100) < s->put_percent;
    keys[key].busy = true;
    c->calls[number] = (call){.key = key, .in_flight = true, .is_put = is_put,
                              .sent = clock_ns(CLOCK_MONOTONIC)};
    if (is_put) send_put(c, number, s->depth);
    else send_get(c, number);
    return true;
}

// --- Answers ---------------------------------------------------------------------------------

static void keep_context(key_state *key, const uint8_t *context, uint32_t bytes) {
    if (bytes > key->context_capacity) {
        key->context_capacity = bytes + 32;
        key->context = realloc(key->context, key->context_capacity);
        if (!key->context) die("realloc");
    }
    memcpy(key->context, context, bytes);
    key->context_bytes = bytes;
}

static void on_put_ok(call *answered, const uint8_t *payload, size_t bytes) {
    const put_ok_head *head = (const put_ok_head *)payload;
    size_t offset = sizeof *head + head->ack_count * sizeof(put_ack);
    key_state *key = &keys[answered->key];
    if (!answered->is_put || offset + head->context_bytes != bytes)
        return complain("a put's answer is malformed", "", 0);
    keep_context(key, payload + offset, head->context_bytes);
    key->written++;
    key->uncertain = false;
}

static void on_get_ok(call *answered, const uint8_t *payload, size_t bytes) {
    const get_ok_head *head = (const get_ok_head *)payload;
    size_t offset = sizeof *head + head->replica_count * sizeof(uint16_t);
    key_state *key = &keys[answered->key];
    if (answered->is_put || offset + head->context_bytes > bytes)
        return complain("a get's answer is malformed", "", 0);
    keep_context(key, payload + offset, head->context_bytes);
    if (!head->value_count) {
        if (key->written && !key->uncertain) complain("a key is missing", "", 0);
        return;
    }
    counts.siblings += head->value_count - 1u;
    const uint8_t *at = payload + offset + head->context_bytes;
    const value_head *found = (const value_head *)at;
    uint8_t mark[MARK_BYTES];
    at += sizeof *found + found->content_type_bytes;
    if (at + found->bytes > payload + bytes || found->bytes != value_bytes)
        return complain("a value has the wrong length", "", 0);
    if (!key->written) key->written = (uint32_t)strtoul((const char *)at + KEY_BYTES + 1, NULL, 10);
    write_mark(mark, answered->key, key->written);
    if (memcmp(at, mark, key->uncertain ? KEY_BYTES : MARK_BYTES))
        complain("not the value that was last acknowledged:", (const char *)at, MARK_BYTES);
}

// Returns the number of the request that was answered.
static unsigned on_payload(connection *c, unsigned depth, const uint8_t *payload, size_t bytes,
                           uint64_t now) {
    uint32_t number = bytes >= 8 ? load32(payload + 4) : depth;
    if (number >= depth || !c->calls[number].in_flight) {
        fprintf(stderr, "loadgen: an answer of kind %u has an unknown number\n", payload[0]);
        exit(1);
    }
    call *answered = &c->calls[number];
    answered->in_flight = false;
    keys[answered->key].busy = false;
    counts.operations++;
    counts.puts += answered->is_put;
    counts.latencies[bucket_of(now - answered->sent)]++;
    if (payload[0] == PUT_OK && bytes >= sizeof(put_ok_head)) {
        on_put_ok(answered, payload, bytes);
    } else if (payload[0] == GET_OK && bytes >= sizeof(get_ok_head)) {
        on_get_ok(answered, payload, bytes);
    } else if (payload[0] == REFUSED) {
        counts.refused++;
        complain("refused:", (const char *)payload + 8, bytes - 8);
    } else if (payload[0] == UNKNOWN) {
        counts.unknown++;
        keys[answered->key].uncertain = true;
        complain("outcome unknown:", (const char *)payload + 8, bytes - 8);
    } else {
        complain("an answer is of an unknown kind", "", 0);
    }
    return number;
}

// --- Connections -----------------------------------------------------------------------------

static void receive_all(int fd, uint8_t *to, size_t bytes) {
    while (bytes) {
        ssize_t count = recv(fd, to, bytes, 0);
        if (count <= 0) die("no Welcome came");
        to += count;
        bytes -= (size_t)count;
    }
}

static void shake_hands(int fd) {
    uint8_t head[LENGTH_BYTES], *payload;
    if (send(fd, hello, hello_bytes, MSG_NOSIGNAL) != (ssize_t)hello_bytes) die("send");
    receive_all(fd, head, sizeof head);
    uint32_t bytes = load32(head);
    if (bytes > 1 << 20) die("no Welcome came");
    payload = allocate(bytes);
    receive_all(fd, payload, bytes);
    if (payload[0] != WELCOME) {
        fprintf(stderr, "loadgen: the connection was refused: %.*s\n", (int)bytes, payload);
        exit(1);
    }
    free(payload);
}

static void open_connection(connection *c, unsigned index, unsigned depth, unsigned first_port) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(ports[(index + first_port) % port_count]),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 10};
    int one = 1;
    *c = (connection){.fd = socket(AF_INET, SOCK_STREAM, 0), .next_counter = 1};
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    shake_hands(c->fd);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    uint64_t client = clock_ns(CLOCK_REALTIME) * 4096 + index;
    memcpy(c->client, &client, sizeof c->client);
    c->in_capacity = 65536;
    c->in = allocate(c->in_capacity);
    c->calls = calloc(depth, sizeof *c->calls);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    if (!c->calls || epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static void close_connection(connection *c) {
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c->calls);
}

static void flush_output(connection *c, unsigned index) {
    while (c->out_sent < c->out_bytes) {
        ssize_t count = send(c->fd, c->out + c->out_sent, c->out_bytes - c->out_sent, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN) die("send");
        if (count < 0) break;
        c->out_sent += (size_t)count;
    }
    bool blocked = c->out_sent < c->out_bytes;
    if (!blocked) c->out_sent = c->out_bytes = 0;
    if (blocked == c->blocked) return;
    c->blocked = blocked;
    struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.u32 = index};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event)) die("epoll_ctl");
}

// Take in what has arrived and, unless `stopping`, replace every answered request by a new one.
// Returns how many requests fewer are in flight.
static unsigned receive(const step *s, unsigned index, uint32_t *next, bool stopping) {
    connection *c = &connections[index];
    if (c->in_bytes == c->in_capacity) {
        c->in_capacity *= 2;
        c->in = realloc(c->in, c->in_capacity);
        if (!c->in) die("realloc");
    }
    ssize_t count = recv(c->fd, c->in + c->in_bytes, c->in_capacity - c->in_bytes, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (count < 0) die("loadgen: a connection broke");
    if (count == 0) {
        fprintf(stderr, "loadgen: a node closed the connection\n");
        exit(1);
    }
    c->in_bytes += (size_t)count;
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    size_t position = 0;
    unsigned fewer = 0;
    while (c->in_bytes - position > LENGTH_BYTES) {
        uint32_t bytes = load32(c->in + position);
        if (c->in_bytes - position - LENGTH_BYTES < bytes) break;
        unsigned number = on_payload(c, s->depth, c->in + position + LENGTH_BYTES, bytes, now);
        position += LENGTH_BYTES + bytes;
        if (stopping || !issue(s, index, number, next)) fewer++;
    }
    memmove(c->in, c->in + position, c->in_bytes - position);
    c->in_bytes -= position;
    return fewer;
}

// --- Steps -----------------------------------------------------------------------------------

// Clocks at the beginning of what is measured, and what went by until its end.
typedef struct {
    uint64_t start, servers, own;
    double seconds, servers_us, own_us;
    tally counts;
} measurement;

static measurement measured;  // of the step that runs, or ran last

static void begin_measurement(measurement *m, uint64_t now) {
    // What went wrong while warming up went wrong all the same.
    counts = (tally){.errors = counts.errors, .refused = counts.refused,
                     .unknown = counts.unknown};
    m->start = now;
    m->servers = servers_cpu();
    m->own = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static void end_measurement(measurement *m) {
    m->seconds = (double)(clock_ns(CLOCK_MONOTONIC) - m->start) / 1e9;
    m->servers_us = (double)(servers_cpu() - m->servers) / 1e3;
    m->own_us = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - m->own) / 1e3;
    m->counts = counts;
}

static void print_measurement(const step *s, const measurement *m) {
    const tally *t = &m->counts;
    double operations = t->operations ? (double)t->operations : 1;
    printf("{\"connections\": %u, \"depth\": %u, \"put_percent\": %d, \"seconds\": %.3f, "
           "\"operations\": %lu, \"puts\": %lu, \"ops_per_second\": %.0f, "
           "\"server_cpu_us_per_op\": %.3f, \"server_utilisation\": %.3f, "
           "\"load_utilisation\": %.3f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
           "\"max_us\": %.1f, \"siblings\": %lu, \"refused\": %lu, \"unknown\": %lu, "
           "\"errors\": %lu}\n",
           s->connections, s->depth, s->put_percent, m->seconds, t->operations, t->puts,
           (double)t->operations / m->seconds, m->servers_us / operations,
           m->servers_us / 1e6 / m->seconds, m->own_us / 1e6 / m->seconds,
           percentile_us(t, 0.5), percentile_us(t, 0.99), percentile_us(t, 0.999),
           percentile_us(t, 1), t->siblings, counts.refused, counts.unknown, counts.errors);
    fflush(stdout);
}

// Issue requests until the step's time is over (or its keys are), then let what is in flight
// come home, so that the next step knows every context.
static void run_requests(const step *s, uint32_t *next, measurement *m) {
    struct epoll_event events[256];
    unsigned in_flight = 0;
    uint64_t start = clock_ns(CLOCK_MONOTONIC), heard = start;
    bool warm = s->sequential, stopping = false;
    begin_measurement(m, start);
    for (unsigned i = 0; i < s->connections; i++) {
        for (unsigned number = 0; number < s->depth; number++)
            in_flight += issue(s, i, number, &next[i]);
        flush_output(&connections[i], i);
    }
    while (in_flight) {
        int ready = epoll_wait(poller, events, 256, 100);
        uint64_t now = clock_ns(CLOCK_MONOTONIC);
        if (ready > 0) heard = now;
        if (now - heard > 15000000000u) {
            fprintf(stderr, "loadgen: no answer for 15 s, %u in flight\n", in_flight);
            exit(1);
        }
        if (!warm && (double)(now - start) > s->warm * 1e9) {
            warm = true;
            begin_measurement(m, now);
        } else if (warm && !stopping && !s->sequential &&
                   (double)(now - m->start) > s->seconds * 1e9) {
            stopping = true;
            end_measurement(m);
        }
        for (int i = 0; i < ready; i++) {
            unsigned index = events[i].data.u32;
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                in_flight -= receive(s, index, &next[index], stopping);
            flush_output(&connections[index], index);
        }
    }
    if (!stopping) end_measurement(m);
}

// Run one step; its connections are spread over the ports beginning with `first_port`.
static void run_step(const step *s, unsigned first_port) {
    uint32_t *next = calloc(s->connections, sizeof *next);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!next || poller < 0) die("step");
    for (unsigned i = 0; i < s->connections; i++)
        open_connection(&connections[i], i, s->depth, first_port);
    run_requests(s, next, &measured);
    for (unsigned i = 0; i < s->connections; i++) close_connection(&connections[i]);
    close(poller);
    free(next);
}

static bool parse_step(const char *text, step *s) {
    *s = (step){.connections = 16, .depth = 16, .sequential = true};
    if (!strncmp(text, "fill", 4)) s->put_percent = 100;
    else if (strncmp(text, "learn", 5)) {
        s->sequential = false;
        if (sscanf(text, "%ux%u %d %lf %lf", &s->connections, &s->depth, &s->put_percent, &s->warm,
                   &s->seconds) != 5)
            return false;
    }
    // More than half of a slice in flight would make keys hard to find.
    return s->connections && s->connections <= CONNECTIONS_MAX && s->depth &&
           s->depth <= DEPTH_MAX && s->connections * s->depth * 2 <= key_count;
}

static void run_text(const char *text) {
    step s;
    counts = (tally){0};
    if (!parse_step(text, &s)) {
        fprintf(stderr, "loadgen: no step, or too many requests for the keys: %s\n", text);
        exit(2);
    }
    run_step(&s, 0);
    // Each node writes every key, as after a while of real use: from then on every vector has an
    // entry of each, whichever node the next put of a key goes to.
    if (s.sequential && s.put_percent)
        for (unsigned first_port = 1; first_port < port_count; first_port++)
            run_step(&s, first_port);
    print_measurement(&s, &measured);
}

static void parse_options(int count, char **arguments) {
    table = from_hex("64656661756c7400", &table_bytes);  // "default"
    for (int option; (option = getopt(count, arguments, "p:P:H:t:k:v:r:w:D:")) != -1;) {
        char *text = optarg;
        switch (option) {
        case 'p':
            for (text = strtok(text, ","); text && port_count < PORTS_MAX; text = strtok(NULL, ","))
                ports[port_count++] = (uint16_t)atoi(text);
            break;
        case 'P':
            for (text = strtok(text, ","); text && pid_count < PIDS_MAX; text = strtok(NULL, ","))
                pids[pid_count++] = atoi(text);
            break;
        case 'H': hello = from_hex(text, &hello_bytes); break;
        case 't': free(table); table = from_hex(text, &table_bytes); break;
        case 'k': key_count = (unsigned)atoi(text); break;
        case 'v': value_bytes = (unsigned)atoi(text); break;
        case 'r': r = (uint8_t)atoi(text); break;
        case 'w': w = (uint8_t)atoi(text); break;
        case 'D': durability = (uint8_t)atoi(text); break;
        default: exit(2);
        }
    }
    if (!port_count || !hello || table_bytes != TABLE_ID_BYTES || value_bytes < 32 ||
        optind == count) {
        fprintf(stderr, "usage: loadgen -p PORTS -H HELLO [options] STEP ... | -\n");
        exit(2);
    }
}

int main(int count, char **arguments) {
    parse_options(count, arguments);
    keys = calloc(key_count, sizeof *keys);
    connections = calloc(CONNECTIONS_MAX, sizeof *connections);
    value = allocate(value_bytes);
    if (!keys || !connections) die("calloc");
    memset(value, 'v', value_bytes);
    if (strcmp(arguments[optind], "-")) {
        for (int i = optind; i < count; i++) run_text(arguments[i]);
    } else {
        char line[256];
        while (fgets(line, sizeof line, stdin) && line[0] != '\n') run_text(line);
    }
    for (unsigned i = 0; i < key_count; i++) free(keys[i].context);
    free(keys);
    free(connections);
    free(value);
    free(hello);
    free(table);
    return 0;
}
