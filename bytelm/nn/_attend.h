/* Attention of a few queries to a cache. */
#pragma once
#include "_numbers.h"

typedef struct {
    const void *q, *k, *v; /* [batch, heads, queries, width]; [rows, kv_heads, slots, width] with the strides below */
    const int64_t *rows;   /* [batch], of keys and values; NULL: each its own */
    const uint8_t *mask;   /* [batch, queries, slots]: what is seen; or NULL */
    const int64_t *last;   /* [batch, queries], where there is no mask: the last slot that is seen */
    void *y;               /* as q */
    Type type;             /* of all numbers: bfloat16 or float32 */
    long batch, heads, kv_heads, queries, slots, width, k_batch, k_head, v_batch, v_head;
    float scale;
    int threads;
} Attention;

/* How many slots a query sees, the last of those that a mask may show included. */
static inline long seen_by(const Attention *a, long b, long query) {
    if (a->mask != NULL) return a->slots;
    long seen = a->last[b * a->queries + query] + 1;
    return seen < a->slots ? seen : a->slots;
}

/* 0 where there is no memory. */
int rows_attend(const Attention *a);
int dot_attend(const Attention *a);
