// What the limit node keeps: a hash table from engine keys to holdings, and the arithmetic of
// records, namely version vectors compared and joined where they lie, and checksums.
#ifndef KVORUM_STORE_H
#define KVORUM_STORE_H

#include "frames.h"

#include <stdbool.h>

// What is held of a key: the engine key and the holding behind it, in one piece, so that a
// batch entry is one copy. Shared by the store and the requests under way.
typedef struct {
    uint32_t references, key_bytes, holding_bytes;
    uint8_t bytes[];
} object;

typedef struct {
    uint64_t hash;               // 0: empty
    object *held;
} slot;

static slot *slots;
static uint64_t slot_mask = (1 << 18) - 1, slots_used;

// --- Checksums and hashes --------------------------------------------------------------------

static uint32_t crc_tables[8][256];

static void prepare_crc(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        crc_tables[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int table = 1; table < 8; table++) {
            uint32_t crc = crc_tables[table - 1][i];
            crc_tables[table][i] = crc >> 8 ^ crc_tables[0][crc & 255];
        }
}

// CRC-32 as zlib's, eight bytes at a time.
static uint32_t crc32_of(const uint8_t *at, size_t bytes) {
    uint32_t crc = ~0u;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        uint64_t x = load64(at) ^ crc;
        crc = crc_tables[7][x & 255] ^ crc_tables[6][x >> 8 & 255] ^
              crc_tables[5][x >> 16 & 255] ^ crc_tables[4][x >> 24 & 255] ^
              crc_tables[3][x >> 32 & 255] ^ crc_tables[2][x >> 40 & 255] ^
              crc_tables[1][x >> 48 & 255] ^ crc_tables[0][x >> 56];
    }
    while (bytes--) crc = crc >> 8 ^ crc_tables[0][(crc ^ *at++) & 255];
    return ~crc;
}

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93ull;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93ull;
    return x ^ x >> 32;
}

// A key as engines know it, with a cheap hash in the place of blake2b. Returns its length.
static size_t make_engine_key(uint8_t *to, const uint8_t *table, const uint8_t *key,
                              size_t key_bytes, const uint8_t *sort_key, size_t sort_key_bytes) {
    uint64_t hash = mix(load64(table) ^ key_bytes);
    size_t left = key_bytes;
    for (; left >= 8; left -= 8, key += 8) hash = mix(hash ^ load64(key));
    if (left) {
        uint64_t last = 0;
        memcpy(&last, key, left);
        hash = mix(hash ^ last);
    }
    to[0] = 1;
    store64(to + 1, hash);
    store64(to + 9, mix(hash + 1));
    memcpy(to + 17, table, TABLE_ID_BYTES);
    store64(to + 25, mix(hash + 2));
    memcpy(to + ENGINE_KEY_BYTES, sort_key, sort_key_bytes);
    return ENGINE_KEY_BYTES + sort_key_bytes;
}

// --- The store -------------------------------------------------------------------------------

static object *new_object(const uint8_t *key, size_t key_bytes, size_t holding_bytes) {
    object *made = allocate(sizeof *made + key_bytes + holding_bytes);
    made->references = 1;
    made->key_bytes = (uint32_t)key_bytes;
    made->holding_bytes = (uint32_t)holding_bytes;
    memcpy(made->bytes, key, key_bytes);
    return made;
}

static void let_go(object *held) {
    if (held && !--held->references) free(held);
}

static uint8_t *holding_of(object *held) { return held->bytes + held->key_bytes; }

static uint8_t *record_of(object *held, size_t *bytes) {
    uint8_t *holding = holding_of(held);
    size_t offset = sizeof(holding_head) + ((holding_head *)holding)->partition_key_bytes;
    *bytes = held->holding_bytes - offset;
    return holding + offset;
}

// The position is a hash already; a sort key is mixed into it.
static uint64_t slot_hash(const uint8_t *key, size_t key_bytes) {
    uint64_t hash = load64(key + 1);
    if (key_bytes > ENGINE_KEY_BYTES)
        hash = mix(hash ^ crc32_of(key + ENGINE_KEY_BYTES, key_bytes - ENGINE_KEY_BYTES));
    return hash | 1;
}

// The slot of a key: the one that holds it, or the empty one where it belongs.
static slot *find(const uint8_t *key, size_t key_bytes) {
    uint64_t hash = slot_hash(key, key_bytes);
    for (uint64_t i = hash >> 1;; i++) {
        slot *at = &slots[i & slot_mask];
        if (!at->hash) return at;
        if (at->hash == hash && at->held->key_bytes == key_bytes &&
            !memcmp(at->held->bytes, key, key_bytes))
            return at;
    }
}

static void grow_store(void) {
    slot *old = slots;
    uint64_t old_slots = slot_mask + 1;
    slot_mask = 2 * old_slots - 1;
    slots = calloc(2 * old_slots, sizeof *slots);
    if (!slots) die("calloc");
    for (uint64_t i = 0; i < old_slots; i++)
        if (old[i].hash) *find(old[i].held->bytes, old[i].held->key_bytes) = old[i];
    free(old);
}

static void keep(slot *at, object *held) {
    if (at->hash) {
        let_go(at->held);
        at->held = held;
        return;
    }
    at->hash = slot_hash(held->bytes, held->key_bytes);
    at->held = held;
    if (++slots_used * 2 > slot_mask) grow_store();
}

// --- Vectors: sorted entries of actor and counter --------------------------------------------

// Whether the vector `newer` has seen everything that `older` has.
static bool descends(const uint8_t *newer, unsigned newer_count, const uint8_t *older,
                     unsigned older_count) {
    if (newer_count == older_count && !memcmp(newer, older, newer_count * DOT_BYTES)) return true;
    const uint8_t *end = newer + newer_count * DOT_BYTES;
    for (; older_count; older_count--, older += DOT_BYTES) {
        while (newer < end && memcmp(newer, older, ACTOR_BYTES) < 0) newer += DOT_BYTES;
        if (newer == end || memcmp(newer, older, ACTOR_BYTES)) return false;
        if (memcmp(newer, older, DOT_BYTES) < 0) return false;
    }
    return true;
}

// Write the vector that has seen what either has; returns its number of entries.
static unsigned join(uint8_t *to, const uint8_t *left, unsigned left_count, const uint8_t *right,
                     unsigned right_count) {
    unsigned count = 0;
    while (left_count || right_count) {
        int order = !left_count    ? 1
                    : !right_count ? -1
                                   : memcmp(left, right, ACTOR_BYTES);
        const uint8_t *higher = order < 0 ? left : right;
        if (order == 0 && memcmp(left, right, DOT_BYTES) > 0) higher = left;
        memcpy(to + DOT_BYTES * count++, higher, DOT_BYTES);
        if (order <= 0) left += DOT_BYTES, left_count--;
        if (order >= 0) right += DOT_BYTES, right_count--;
    }
    return count;
}

static bool supersedes(const uint8_t *newer, const uint8_t *older) {
    return descends(newer + sizeof(record_head), ((record_head *)newer)->entry_count,
                    older + sizeof(record_head), ((record_head *)older)->entry_count);
}

static void prepare_store(void) {
    prepare_crc();
    slots = calloc(slot_mask + 1, sizeof *slots);
    if (!slots) die("calloc");
}

#endif
