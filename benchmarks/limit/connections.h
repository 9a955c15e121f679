// Connections of the limit node: output that gathers and leaves once per turn, and what is left
// of a frame that has not arrived whole.
#ifndef KVORUM_CONNECTIONS_H
#define KVORUM_CONNECTIONS_H

#include "frames.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct connection {
    int fd;                      // -1: closed
    bool listens, dirty, blocked;
    uint32_t requests;           // under way for this client
    uint8_t *tail;               // of a frame that has not arrived whole
    size_t tail_bytes;
    uint8_t *out;
    size_t out_bytes, out_capacity;
} connection;

static int poller;
static connection **dirty;
static size_t dirty_count, dirty_capacity;

static void touch(connection *c) {
    if (c->dirty) return;
    if (dirty_count == dirty_capacity) {
        dirty_capacity = dirty_capacity ? 2 * dirty_capacity : 256;
        dirty = realloc(dirty, dirty_capacity * sizeof *dirty);
        if (!dirty) die("realloc");
    }
    c->dirty = true;
    dirty[dirty_count++] = c;
}

// Room for `bytes` more of output. The pointer is good until the next call.
static uint8_t *room(connection *c, size_t bytes) {
    if (c->out_bytes + bytes > c->out_capacity) {
        if (!c->out_capacity) c->out_capacity = 1024;
        while (c->out_bytes + bytes > c->out_capacity) c->out_capacity *= 2;
        c->out = realloc(c->out, c->out_capacity);
        if (!c->out) die("realloc");
    }
    uint8_t *at = c->out + c->out_bytes;
    c->out_bytes += bytes;
    touch(c);
    return at;
}

static uint8_t *frame(connection *c, size_t payload_bytes) {
    uint8_t *at = room(c, LENGTH_BYTES + payload_bytes);
    store32(at, (uint32_t)payload_bytes);
    return at + LENGTH_BYTES;
}

static void watch(connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event)) die("epoll_ctl");
}

static void hang_up(connection *c) {
    if (c->fd < 0) return;
    close(c->fd);
    c->fd = -1;
    c->tail_bytes = 0;
    touch(c);
}

// Send what has gathered. A closed client goes when no request is left that points to it.
static void flush_connection(connection *c) {
    c->dirty = false;
    size_t sent = 0;
    while (c->fd >= 0 && sent < c->out_bytes) {
        ssize_t count = send(c->fd, c->out + sent, c->out_bytes - sent, MSG_NOSIGNAL);
        if (count >= 0) {
            sent += (size_t)count;
        } else if (errno == EAGAIN) {
            memmove(c->out, c->out + sent, c->out_bytes - sent);
            c->out_bytes -= sent;
            if (!c->blocked) watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            c->blocked = true;
            return;
        } else {
            close(c->fd);
            c->fd = -1;
        }
    }
    c->out_bytes = 0;
    if (c->fd >= 0) {
        if (c->blocked) watch(c, EPOLL_CTL_MOD, EPOLLIN);
        c->blocked = false;
    } else if (!c->requests) {
        free(c->tail);
        free(c->out);
        free(c);
    }
}

// Keep what is left of the input for the next time that something arrives.
static void keep_tail(connection *c, const uint8_t *at, size_t bytes) {
    c->tail_bytes = bytes;
    if (!bytes) return;
    c->tail = realloc(c->tail, bytes);
    if (!c->tail) die("realloc");
    memcpy(c->tail, at, bytes);
}

static connection *add_connection(int fd, bool listens) {
    connection *c = calloc(1, sizeof *c);
    if (!c) die("calloc");
    c->fd = fd;
    c->listens = listens;
    int one = 1;
    if (!listens) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    return c;
}

#endif
