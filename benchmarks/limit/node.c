// The limit: one node of a three-node cluster, doing for kvorum's native client frames the same
// protocol work as a kvorum node, in C, on one thread with epoll. What kvorum's CPU time per
// operation is measured against.
//
//   node MEMBER WELCOME      WELCOME: the frame that answers every Hello, in hexadecimal
//
// It listens on a port that the kernel picks and prints "port N"; reads one line "MEMBER PORT
// MEMBER PORT", the other two nodes, from its standard input; connects to them, prints "ready",
// and serves until that input ends.
//
// A put: the frame is parsed, the own record looked up, the context's checksum and vector
// checked, a dot minted, the whole record built, stored and sent to both others; the client is
// answered with its new context at the first ack (w = 2). A get: the own record and that of one
// other node, asked in turn, are compared, and the newer is answered (r = 2). All that goes to
// one node in one turn is one batch, answered by one frame; every connection is written to once
// per turn.
//
// Not here: ring, log, timeouts, hints, repair, put ids, siblings (a put that would leave one is
// refused, since the load makes none) and blake2b (a cheap hash of equal length stands for it).
#define _GNU_SOURCE
#include "connections.h"
#include "store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    PEERS = 2,
    EVENTS = 512,
    INPUT_BYTES = 1 << 18,
    FRAME_BYTES_MAX = 32 << 20,
    BATCH_ENTRIES_MAX = 60000,
    BATCH_BYTES_MAX = 1 << 20,
    VECTOR_MAX = 256,            // entries of a context; the load leaves one per node
    W = 2,
};

// A client's request that waits for other nodes.
typedef struct request {
    connection *client;
    object *held;                // a put's new record; a get's own copy
    uint32_t number;
    uint8_t waiting;             // for answers of this many nodes
    bool is_get, answered;
    struct request *next;        // in the list of free ones
} request;

typedef struct {
    uint16_t member;
    connection *connection;
    ptrdiff_t batch;             // where this turn's batch begins in the output; -1: none yet
    uint16_t batch_count;
    uint32_t batch_number;
    request **asked;             // a ring: requests in the order in which they were sent
    uint32_t asked_first, asked_end, asked_mask;
} peer;

static uint16_t member;
static uint8_t store_id[8];
static uint32_t last_stamp;
static uint64_t wall, last_clock;                    // microseconds; wall is read once per turn
static uint8_t *welcome;
static size_t welcome_bytes;
static peer peers[PEERS];
static uint32_t next_asked;                          // the peer that the next get asks
static request *free_requests;
static uint8_t *input;                               // what was just received, after its tail
static size_t input_capacity = INPUT_BYTES;

// --- Batches to the other nodes --------------------------------------------------------------

// Begin this turn's batch; its count, number and length are filled in when it ends.
static void begin_batch(peer *p) {
    p->batch = (ptrdiff_t)p->connection->out_bytes;
    p->batch_count = 0;
    room(p->connection, LENGTH_BYTES + sizeof(batch_head));
}

static void end_batch(peer *p) {
    if (p->batch < 0) return;
    uint8_t *at = p->connection->out + p->batch;
    size_t payload_bytes = p->connection->out_bytes - (size_t)p->batch - LENGTH_BYTES;
    store32(at, (uint32_t)payload_bytes);
    *(batch_head *)(at + LENGTH_BYTES) =
        (batch_head){.kind = BATCH, .count = p->batch_count, .number = p->batch_number++};
    p->batch = -1;
}

static void remember_asked(peer *p, request *asking) {
    if (p->asked_end - p->asked_first > p->asked_mask) {
        uint32_t old_mask = p->asked_mask;
        request **grown = allocate(2 * (old_mask + 1ul) * sizeof *grown);
        for (uint32_t i = p->asked_first; i != p->asked_end; i++)
            grown[i & (2 * old_mask + 1)] = p->asked[i & old_mask];
        free(p->asked);
        p->asked = grown;
        p->asked_mask = 2 * old_mask + 1;
    }
    p->asked[p->asked_end++ & p->asked_mask] = asking;
}

static void ask(peer *p, uint8_t operation, const uint8_t *key, size_t key_bytes,
                size_t body_bytes, request *asking) {
    connection *c = p->connection;
    if (p->batch >= 0 && (p->batch_count == BATCH_ENTRIES_MAX ||
                          c->out_bytes - (size_t)p->batch > BATCH_BYTES_MAX))
        end_batch(p);
    if (p->batch < 0) begin_batch(p);
    uint8_t *at = room(c, sizeof(entry_head) + key_bytes + body_bytes);
    *(entry_head *)at = (entry_head){.operation = operation,
                                     .key_bytes = (uint16_t)key_bytes,
                                     .body_bytes = (uint32_t)body_bytes,
                                     .epoch = 1};
    at += sizeof(entry_head);
    memcpy(at, key, key_bytes + body_bytes);  // an object's holding stands right behind its key
    if (operation == ENTRY_PUT) memset(at + key_bytes + OWN_OFFSET, 0, DOT_BYTES);
    p->batch_count++;
    remember_asked(p, asking);
}

static request *new_request(connection *client, uint32_t number, object *held, bool is_get) {
    request *made = free_requests;
    if (made) free_requests = made->next;
    else made = allocate(sizeof *made);
    *made = (request){.client = client, .held = held, .number = number,
                      .waiting = is_get ? 1 : PEERS, .is_get = is_get};
    held->references++;
    client->requests++;
    return made;
}

static void settle(request *settled) {
    connection *client = settled->client;
    let_go(settled->held);
    if (!--client->requests && client->fd < 0) touch(client);
    settled->next = free_requests;
    free_requests = settled;
}

// --- Requests of clients ---------------------------------------------------------------------

// Write a context of a vector: what a put or get gives its client.
static void write_context(uint8_t *to, const uint8_t *key, size_t key_bytes,
                          const uint8_t *entries, unsigned entry_count, uint64_t clock) {
    context_head *head = (context_head *)to;
    *head = (context_head){.format = FORMAT, .entry_count = (uint16_t)entry_count,
                           .clock = clock};
    memcpy(head->digest, key + 25, 8);
    uint32_t sort_key_sum = crc32_of(key + ENGINE_KEY_BYTES, key_bytes - ENGINE_KEY_BYTES);
    memcpy(head->digest + 8, &sort_key_sum, 4);
    size_t bytes = sizeof *head + entry_count * DOT_BYTES;
    memcpy(to + sizeof *head, entries, entry_count * DOT_BYTES);
    store32(to + bytes, crc32_of(to, bytes));
}

static size_t context_bytes_of(unsigned entry_count) {
    return sizeof(context_head) + entry_count * DOT_BYTES + CHECKSUM_BYTES;
}

// Whether a context is whole and of this key; a text that says what is wrong, or null.
static const char *check_context(const uint8_t *context, size_t bytes, const uint8_t *key,
                                 size_t key_bytes) {
    const context_head *head = (const context_head *)context;
    if (bytes < context_bytes_of(0) || bytes != context_bytes_of(head->entry_count) ||
        head->format != FORMAT || head->entry_count > VECTOR_MAX)
        return "the context is cut short, or has runs, which are unknown here";
    if (load32(context + bytes - CHECKSUM_BYTES) != crc32_of(context, bytes - CHECKSUM_BYTES))
        return "the context is damaged";
    uint32_t sort_key_sum = crc32_of(key + ENGINE_KEY_BYTES, key_bytes - ENGINE_KEY_BYTES);
    if (memcmp(head->digest, key + 25, 8) || load32(head->digest + 8) != sort_key_sum)
        return "the context belongs to another key";
    return NULL;
}

// The dot under which this node writes the key: the next of its own actor for it, else the
// first of a new one.
static void mint(uint8_t *dot, object *old) {
    static const uint8_t none[DOT_BYTES];
    uint8_t *own = old ? holding_of(old) + OWN_OFFSET : NULL;
    if (own && memcmp(own, none, DOT_BYTES)) {
        memcpy(dot, own, ACTOR_BYTES);
        uint32_t counter = htonl(ntohl(load32(own + ACTOR_BYTES)) + 1);
        memcpy(dot + ACTOR_BYTES, &counter, 4);
        return;
    }
    uint32_t stamp = htonl(++last_stamp), counter = htonl(1);
    memcpy(dot, store_id, 8);
    memcpy(dot + 8, &stamp, 4);
    memcpy(dot + ACTOR_BYTES, &counter, 4);
}

static object *build(const uint8_t *key, size_t key_bytes, const uint8_t *partition_key,
                     const put_head *put, const uint8_t *vector, unsigned entry_count,
                     const uint8_t *dot, const uint8_t *value, size_t value_bytes) {
    size_t vector_bytes = entry_count * DOT_BYTES;
    object *made = new_object(key, key_bytes,
                              sizeof(holding_head) + put->partition_key_bytes +
                                  sizeof(record_head) + vector_bytes + sizeof(value_head) +
                                  value_bytes);
    uint8_t *at = holding_of(made);
    holding_head *holding = (holding_head *)at;
    *holding = (holding_head){.format = FORMAT,
                              .partition_key_bytes = put->partition_key_bytes};
    memcpy(holding->own, dot, DOT_BYTES);
    at += sizeof *holding;
    memcpy(at, partition_key, put->partition_key_bytes);
    at += put->partition_key_bytes;
    *(record_head *)at = (record_head){.format = FORMAT, .entry_count = (uint16_t)entry_count,
                                       .value_count = 1};
    at += sizeof(record_head);
    memcpy(at, vector, vector_bytes);
    at += vector_bytes;
    value_head *head = (value_head *)at;
    last_clock = wall > last_clock ? wall : last_clock + 1;
    *head = (value_head){.clock = last_clock, .counter = put->counter,
                         .bytes = (uint32_t)value_bytes - put->content_type_bytes,
                         .content_type_bytes = put->content_type_bytes};
    memcpy(head->dot, dot, DOT_BYTES);
    memcpy(head->client, put->client, sizeof head->client);
    memcpy(at + sizeof *head, value, value_bytes);  // the content type stands before the value
    return made;
}

static void refuse(connection *c, uint32_t number, uint8_t code, const char *text) {
    uint8_t *at = frame(c, sizeof(failure_head) + strlen(text));
    *(failure_head *)at = (failure_head){.kind = REFUSED, .code = code, .request = number};
    memcpy(at + sizeof(failure_head), text, strlen(text));
}

static void on_put(connection *client, const uint8_t *payload, size_t bytes) {
    const put_head *put = (const put_head *)payload;
    const uint8_t *partition_key = payload + sizeof *put;
    const uint8_t *sort_key = partition_key + put->partition_key_bytes;
    const uint8_t *context = sort_key + put->sort_key_bytes;
    const uint8_t *value = context + put->context_bytes;
    size_t head_bytes = (size_t)(value - payload);
    if (head_bytes + put->content_type_bytes > bytes || put->sort_key_bytes > 1024)
        return refuse(client, put->request, BAD_REQUEST, "the put is cut short");
    uint8_t key[ENGINE_KEY_BYTES + 1024];
    size_t key_bytes = make_engine_key(key, put->table, partition_key, put->partition_key_bytes,
                                       sort_key, put->sort_key_bytes);
    unsigned context_entries = 0;
    if (put->context_bytes) {
        const char *wrong = check_context(context, put->context_bytes, key, key_bytes);
        if (wrong) return refuse(client, put->request, BAD_CONTEXT, wrong);
        context_entries = ((const context_head *)context)->entry_count;
        context += sizeof(context_head);
    }
    slot *at = find(key, key_bytes);
    object *old = at->hash ? at->held : NULL;
    if (old) {
        size_t record_bytes;
        uint8_t *record = record_of(old, &record_bytes);
        unsigned count = ((record_head *)record)->entry_count;
        if (!descends(context, context_entries, record + sizeof(record_head), count))
            return refuse(client, put->request, BAD_REQUEST,
                          "the put would leave a sibling, which the limit node does not keep");
    }
    uint8_t dot[DOT_BYTES], vector[(VECTOR_MAX + 1) * DOT_BYTES];
    mint(dot, old);
    unsigned entry_count = join(vector, context, context_entries, dot, 1);
    object *made = build(key, key_bytes, partition_key, put, vector, entry_count, dot, value,
                         bytes - head_bytes);
    request *asking = new_request(client, put->request, made, false);
    keep(at, made);
    for (int i = 0; i < PEERS; i++)
        ask(&peers[i], ENTRY_PUT, made->bytes, key_bytes, made->holding_bytes, asking);
}

static void on_get(connection *client, const uint8_t *payload, size_t bytes) {
    const get_head *get = (const get_head *)payload;
    const uint8_t *partition_key = payload + sizeof *get;
    const uint8_t *sort_key = partition_key + get->partition_key_bytes;
    if ((size_t)(sort_key - payload) + get->sort_key_bytes != bytes || get->sort_key_bytes > 1024)
        return refuse(client, get->request, BAD_REQUEST, "the get is cut short");
    uint8_t key[ENGINE_KEY_BYTES + 1024];
    size_t key_bytes = make_engine_key(key, get->table, partition_key, get->partition_key_bytes,
                                       sort_key, get->sort_key_bytes);
    slot *at = find(key, key_bytes);
    // Where nothing is held, an object without a holding remembers the key.
    object *held = at->hash ? at->held : new_object(key, key_bytes, 0);
    request *asking = new_request(client, get->request, held, true);
    if (!at->hash) let_go(held);  // the request's alone
    ask(&peers[next_asked++ % PEERS], ENTRY_GET, key, key_bytes, 0, asking);
}

static void answer_put(request *asking, uint16_t other) {
    size_t record_bytes;
    uint8_t *key = asking->held->bytes, *record = record_of(asking->held, &record_bytes);
    unsigned entry_count = ((record_head *)record)->entry_count;
    uint8_t *entries = record + sizeof(record_head);
    const value_head *value = (const value_head *)(entries + entry_count * DOT_BYTES);
    size_t context_bytes = context_bytes_of(entry_count);
    uint8_t *at = frame(asking->client,
                        sizeof(put_ok_head) + W * sizeof(put_ack) + context_bytes);
    *(put_ok_head *)at = (put_ok_head){.kind = PUT_OK, .ack_count = W,
                                       .request = asking->number, .coordinator = member,
                                       .w = W, .context_bytes = (uint32_t)context_bytes};
    at += sizeof(put_ok_head);
    ((put_ack *)at)[0] = (put_ack){.member = member};
    ((put_ack *)at)[1] = (put_ack){.member = other};
    write_context(at + W * sizeof(put_ack), key, asking->held->key_bytes, entries, entry_count,
                  value->clock);
}

static void answer_get(request *asking, uint16_t other, const uint8_t *theirs,
                       size_t theirs_bytes) {
    static const uint8_t nothing[sizeof(record_head)];
    const uint8_t *record = theirs ? theirs : nothing;
    size_t record_bytes = theirs ? theirs_bytes : sizeof nothing;
    if (asking->held->holding_bytes) {
        size_t own_bytes;
        uint8_t *own = record_of(asking->held, &own_bytes);
        bool equal = theirs && own_bytes == theirs_bytes && !memcmp(own, theirs, own_bytes);
        if (equal || !theirs || supersedes(own, theirs)) {
            record = own;
            record_bytes = own_bytes;
        }
    }
    const record_head *head = (const record_head *)record;
    const uint8_t *entries = record + sizeof *head;
    const uint8_t *values = entries + head->entry_count * DOT_BYTES;
    size_t values_bytes = record_bytes - (size_t)(values - record);
    size_t context_bytes = context_bytes_of(head->entry_count);
    uint8_t *at = frame(asking->client,
                        sizeof(get_ok_head) + 2 * sizeof(uint16_t) + context_bytes + values_bytes);
    *(get_ok_head *)at = (get_ok_head){
        .kind = GET_OK, .flags = head->value_count ? FOUND : 0,
        .value_count = head->value_count, .request = asking->number, .coordinator = member,
        .replica_count = 2, .context_bytes = (uint32_t)context_bytes};
    at += sizeof(get_ok_head);
    memcpy(at, &member, sizeof member);
    memcpy(at + sizeof member, &other, sizeof other);
    at += 2 * sizeof(uint16_t);
    write_context(at, asking->held->bytes, asking->held->key_bytes, entries, head->entry_count,
                  values_bytes ? ((const value_head *)values)->clock : 0);
    memcpy(at + context_bytes, values, values_bytes);
}

// --- What other nodes send -------------------------------------------------------------------

// Keep a record that another node sends, if it has seen all that is held here.
static void take(const uint8_t *key, size_t key_bytes, const uint8_t *body, size_t body_bytes) {
    slot *at = find(key, key_bytes);
    object *taken = new_object(key, key_bytes, body_bytes);
    memcpy(holding_of(taken), body, body_bytes);
    if (at->hash) {
        size_t bytes;
        if (!supersedes(record_of(taken, &bytes), record_of(at->held, &bytes)))
            return let_go(taken);
        // The own dot is this node's alone, and stays.
        memcpy(holding_of(taken) + OWN_OFFSET, holding_of(at->held) + OWN_OFFSET, DOT_BYTES);
    }
    keep(at, taken);
}

static bool on_batch(connection *c, const uint8_t *payload, size_t bytes) {
    const batch_head *head = (const batch_head *)payload;
    size_t start = c->out_bytes;
    batch_head answers = {.kind = ANSWERS, .count = head->count, .number = head->number};
    uint8_t *out = room(c, LENGTH_BYTES + sizeof answers + head->count);
    memcpy(out + LENGTH_BYTES, &answers, sizeof answers);
    memset(out + LENGTH_BYTES + sizeof answers, STATUS_OK, head->count);
    size_t offset = sizeof *head;
    for (unsigned i = 0; i < head->count; i++) {
        const entry_head *entry = (const entry_head *)(payload + offset);
        if (offset + sizeof *entry > bytes) return false;
        const uint8_t *key = payload + offset + sizeof *entry, *body = key + entry->key_bytes;
        offset += sizeof *entry + entry->key_bytes + (size_t)entry->body_bytes;
        if (offset > bytes || entry->key_bytes < ENGINE_KEY_BYTES) return false;
        if (entry->operation == ENTRY_PUT) {
            if (entry->body_bytes < sizeof(holding_head) + sizeof(record_head)) return false;
            take(key, entry->key_bytes, body, entry->body_bytes);
            continue;
        }
        slot *at = find(key, entry->key_bytes);
        if (!at->hash) continue;
        size_t record_bytes;
        uint8_t *record = record_of(at->held, &record_bytes);
        out = room(c, 4 + 8 + record_bytes);
        store32(out, (uint32_t)record_bytes);
        store64(out + 4, entry->generation);
        memcpy(out + 12, record, record_bytes);
        c->out[start + LENGTH_BYTES + sizeof answers + i] = STATUS_RECORD;
    }
    store32(c->out + start, (uint32_t)(c->out_bytes - start - LENGTH_BYTES));
    return true;
}

static bool on_answers(connection *c, const uint8_t *payload, size_t bytes) {
    const batch_head *head = (const batch_head *)payload;
    peer *p = peers[0].connection == c ? &peers[0] : &peers[1];
    const uint8_t *statuses = payload + sizeof *head, *end = payload + bytes;
    const uint8_t *at = statuses + head->count;
    if (p->connection != c || at > end || head->count > p->asked_end - p->asked_first)
        return false;
    for (unsigned i = 0; i < head->count; i++) {
        const uint8_t *record = NULL;
        size_t record_bytes = 0;
        if (statuses[i] == STATUS_RECORD) {
            if (at + 12 > end || load32(at) > (size_t)(end - at) - 12)
                return false;
            record = at + 12;
            record_bytes = load32(at);
            at = record + record_bytes;
        }
        request *asking = p->asked[p->asked_first++ & p->asked_mask];
        if (!asking->answered && asking->client->fd >= 0) {
            if (asking->is_get) answer_get(asking, p->member, record, record_bytes);
            else answer_put(asking, p->member);
        }
        asking->answered = true;
        if (!--asking->waiting) settle(asking);
    }
    return true;
}

// --- The turn --------------------------------------------------------------------------------

static bool on_payload(connection *c, const uint8_t *payload, size_t bytes) {
    if (payload[0] == HELLO) {
        memcpy(room(c, welcome_bytes), welcome, welcome_bytes);
        return true;
    }
    if (bytes < sizeof(batch_head)) return false;
    switch (payload[0]) {
    case PUT:
        if (bytes < sizeof(put_head)) return false;
        on_put(c, payload, bytes);
        return true;
    case GET:
        if (bytes < sizeof(get_head)) return false;
        on_get(c, payload, bytes);
        return true;
    case BATCH: return on_batch(c, payload, bytes);
    case ANSWERS: return on_answers(c, payload, bytes);
    }
    return false;
}

static void receive(connection *c) {
    if (c->tail_bytes + INPUT_BYTES > input_capacity) {
        input_capacity = 2 * (c->tail_bytes + INPUT_BYTES);
        input = realloc(input, input_capacity);
        if (!input) die("realloc");
    }
    if (c->tail_bytes) memcpy(input, c->tail, c->tail_bytes);
    ssize_t count = recv(c->fd, input + c->tail_bytes, INPUT_BYTES, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) return hang_up(c);
    size_t position = 0, have = c->tail_bytes + (size_t)count;
    while (have - position > LENGTH_BYTES) {
        uint32_t bytes = load32(input + position);
        bool sound = bytes && bytes <= FRAME_BYTES_MAX;
        if (sound && have - position - LENGTH_BYTES < bytes) break;
        if (!sound || !on_payload(c, input + position + LENGTH_BYTES, bytes)) {
            fprintf(stderr, "node %u: a malformed frame of %u bytes\n", member, bytes);
            return hang_up(c);
        }
        position += LENGTH_BYTES + bytes;
    }
    keep_tail(c, input + position, have - position);
}

static void accept_all(connection *listener) {
    for (;;) {
        int fd = accept(listener->fd, NULL, NULL);
        if (fd < 0) return;
        add_connection(fd, false);
    }
}

static uint64_t wall_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void end_turn(void) {
    for (int i = 0; i < PEERS; i++) end_batch(&peers[i]);
    for (size_t i = 0; i < dirty_count; i++) flush_connection(dirty[i]);
    dirty_count = 0;
    for (int i = 0; i < PEERS; i++)
        if (peers[i].connection->fd < 0) exit(3);  // a cluster of two has nothing to measure
}

static void serve(void) {
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        wall = wall_now();
        for (int i = 0; i < count; i++) {
            connection *c = events[i].data.ptr;
            if (!c) return;  // the standard input ended, and with it the benchmark
            if (c->listens) {
                accept_all(c);
                continue;
            }
            if (events[i].events & EPOLLOUT) touch(c);
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
        }
        end_turn();
    }
}

// --- Start -----------------------------------------------------------------------------------

static int open_socket(uint16_t port, bool listens) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0) die("socket");
    if (!listens) {
        if (connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect");
        return fd;
    }
    socklen_t size = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, 1024)) die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &size)) die("getsockname");
    printf("port %u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: node MEMBER WELCOME\n");
        return 2;
    }
    member = (uint16_t)atoi(arguments[1]);
    welcome = from_hex(arguments[2], &welcome_bytes);
    signal(SIGPIPE, SIG_IGN);
    wall = wall_now();
    uint64_t identity = mix(wall ^ (uint64_t)getpid() << 32);
    memcpy(store_id, &identity, sizeof store_id);
    input = allocate(input_capacity);
    prepare_store();
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) die("epoll_create1");

    connection *listener = add_connection(open_socket(0, true), true);
    unsigned others[PEERS], ports[PEERS];
    if (scanf("%u %u %u %u", &others[0], &ports[0], &others[1], &ports[1]) != 4) {
        fprintf(stderr, "the other nodes were expected: MEMBER PORT MEMBER PORT\n");
        return 2;
    }
    for (int i = 0; i < PEERS; i++) {
        int fd = open_socket((uint16_t)ports[i], false);
        peers[i] = (peer){.member = (uint16_t)others[i], .connection = add_connection(fd, false),
                          .batch = -1, .asked_mask = 1023};
        peers[i].connection->requests = 1;  // so that it is never freed
        peers[i].asked = allocate(1024 * sizeof *peers[i].asked);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event)) die("standard input");
    printf("ready\n");
    fflush(stdout);
    serve();
    (void)listener;
    return 0;
}
