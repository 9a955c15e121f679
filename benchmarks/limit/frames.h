// The frames of kvorum's native protocol, as far as the limit node and the load generator need
// them. The layouts are those of src/kvorum/wire/requests.py, wire/link.py, model/record.py,
// model/holding.py and model/context.py; docs/reference/formats has them byte by byte.
//
// Everything on the wire is little-endian, and so is every machine this is meant for: heads are
// packed structs laid over the bytes. Actors, dots and the counters in them are big-endian, so
// that they compare as bytes.
#ifndef KVORUM_FRAMES_H
#define KVORUM_FRAMES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the heads below are laid over little-endian bytes"
#endif

#define PACKED __attribute__((packed))

enum kind {
    HELLO = 0x01, WELCOME = 0x02, REJECT = 0x03,
    BATCH = 0x10, ANSWERS = 0x11,
    PUT = 0x30, GET = 0x31, PUT_OK = 0x40, GET_OK = 0x41, REFUSED = 0x42, UNKNOWN = 0x43,
};
enum { FOUND = 1 };                                  // flag of GET_OK
enum { BAD_REQUEST = 1, BAD_CONTEXT = 3 };           // codes of REFUSED
enum { ENTRY_PUT = 1, ENTRY_GET = 2 };               // what a batch entry asks for
enum { STATUS_OK = 0, STATUS_RECORD = 1 };           // what is answered: held or absent; a record

enum {
    LENGTH_BYTES = 4,
    TABLE_ID_BYTES = 8,
    ENGINE_KEY_BYTES = 33,       // space 1, position 16, table id 8, second hash 8; then sort key
    ACTOR_BYTES = 12,
    DOT_BYTES = 16,              // actor, counter; also the size of a vector's entry
    RUN_BYTES = 20,
    OWN_OFFSET = 4,              // of the own dot in a holding
    CHECKSUM_BYTES = 4,
    DIGEST_BYTES = 12,
    FORMAT = 1,                  // of records, holdings and contexts
};

typedef struct PACKED {
    uint8_t kind, flags;
    uint16_t partition_key_bytes;
    uint32_t request;
    uint8_t w, durability, sloppy, content_type_bytes;
    uint16_t sort_key_bytes, zero;
    uint32_t context_bytes;
    uint8_t table[TABLE_ID_BYTES], client[8];
    uint64_t counter, first_sent, lowest_open, ttl;
} put_head;  // then partition key, sort key, context, content type, value

typedef struct PACKED {
    uint8_t kind, flags;
    uint16_t partition_key_bytes;
    uint32_t request;
    uint8_t r, sloppy;
    uint16_t sort_key_bytes;
    uint8_t table[TABLE_ID_BYTES];
} get_head;  // then partition key, sort key

typedef struct PACKED {
    uint8_t kind, flags;
    uint16_t ack_count;
    uint32_t request;
    uint16_t coordinator, w;
    uint32_t context_bytes;
} put_ok_head;  // then acks, context

typedef struct PACKED {
    uint16_t member;
    uint8_t level, fallback;
} put_ack;

typedef struct PACKED {
    uint8_t kind, flags;
    uint16_t value_count;
    uint32_t request;
    uint16_t coordinator, replica_count;
    uint32_t context_bytes;
} get_ok_head;  // then replicas (u16 each), context, values as in a record

typedef struct PACKED {
    uint8_t kind, code;
    uint16_t zero;
    uint32_t request;
} failure_head;  // then text

typedef struct PACKED {
    uint8_t kind, flags;
    uint16_t count;
    uint32_t number;
} batch_head;  // of BATCH, then entries; of ANSWERS, then a status byte per entry, then payloads

typedef struct PACKED {
    uint8_t operation, flags;
    uint16_t key_bytes;
    uint32_t body_bytes, epoch;
    uint64_t generation;
} entry_head;  // then engine key, body

typedef struct PACKED {
    uint8_t format, flags;
    uint16_t entry_count, run_count, value_count;
} record_head;  // then entries (16 each), runs (20 each), values

typedef struct PACKED {
    uint8_t dot[DOT_BYTES];
    uint64_t clock, expiry;
    uint8_t client[8];
    uint64_t counter;
    uint32_t bytes;
    uint8_t flags, content_type_bytes;
    uint16_t zero;
} value_head;  // then content type, bytes

typedef struct PACKED {
    uint8_t format, flags;
    uint16_t partition_key_bytes;
    uint8_t own[DOT_BYTES];
} holding_head;  // then partition key, record

typedef struct PACKED {
    uint8_t format, zero;
    uint16_t entry_count, run_count, more;
    uint8_t digest[DIGEST_BYTES];
    uint64_t clock;
} context_head;  // then entries, runs, u32 CRC-32 of all before

_Static_assert(sizeof(put_head) == 68, "as in requests.py");
_Static_assert(sizeof(get_head) == 20, "as in requests.py");
_Static_assert(sizeof(put_ok_head) == 16 && sizeof(get_ok_head) == 16, "as in requests.py");
_Static_assert(sizeof(value_head) == 56 && sizeof(record_head) == 8, "as in record.py");
_Static_assert(sizeof(holding_head) == 20, "as in holding.py");
_Static_assert(sizeof(context_head) == 28, "as in context.py");
_Static_assert(sizeof(entry_head) == 20 && sizeof(batch_head) == 8, "as in link.py");

static inline uint16_t load16(const uint8_t *at) { uint16_t x; memcpy(&x, at, 2); return x; }
static inline uint32_t load32(const uint8_t *at) { uint32_t x; memcpy(&x, at, 4); return x; }
static inline uint64_t load64(const uint8_t *at) { uint64_t x; memcpy(&x, at, 8); return x; }
static inline void store32(uint8_t *at, uint32_t x) { memcpy(at, &x, 4); }
static inline void store64(uint8_t *at, uint64_t x) { memcpy(at, &x, 8); }

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline void *allocate(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) die("malloc");
    return memory;
}

// Bytes of an argument in hexadecimal digits; they are never freed.
static inline uint8_t *from_hex(const char *digits, size_t *bytes) {
    *bytes = strlen(digits) / 2;
    uint8_t *decoded = allocate(*bytes);
    for (size_t i = 0; i < *bytes; i++) {
        unsigned value;
        if (sscanf(digits + 2 * i, "%2x", &value) != 1) {
            fprintf(stderr, "not hexadecimal: %s\n", digits);
            exit(2);
        }
        decoded[i] = (uint8_t)value;
    }
    return decoded;
}

#endif
