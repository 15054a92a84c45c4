/* The blocks of a body, and a chained head, for a few rows: what lies between products in the same pass over memory. */
#pragma once
#include "_attend.h"
#include "_rows.h"

#ifdef ROWS_SUPPORTED
typedef struct {
    const void *attention_norm, *query_key_value, *output, *feedforward_norm, *gate_up, *down;
    void *keys, *values; /* [rows of the cache, kv_heads, capacity, head_width], packed */
} Block;

typedef struct {
    const Block *blocks;
    void *x;                  /* [batch, steps, width], in place */
    const int64_t *rows;      /* [batch], of the cache; NULL: each its own */
    const int64_t *positions; /* [batch, steps]: slots that are written */
    const int64_t *last;      /* [batch, steps]: the last slot that is seen */
    const float *frequencies; /* [turned / 2]: radians per position of each pair */
    long num_blocks, batch, steps, width, heads, kv_heads, head_width, turned, inner, slots, capacity;
    Type type;
    float attention_eps, feedforward_eps, scale;
    int threads;
} Body;

typedef struct {
    const void *x;         /* [rows, width] */
    const void *embedding; /* [vocabulary, byte_width] */
    const int64_t *prefix; /* [rows, known] */
    const void *up, *down; /* [inner, width + known byte_width], [width, inner] */
    const void *added;     /* [rows, width], or NULL */
    const void *norm, *unembedding;
    void *logits;          /* [rows, vocabulary] */
    long rows, known, width, byte_width, inner, vocabulary;
    Type type;
    float eps;
    int threads;
} Head;

/* 0 where there is no memory. */
int rows_body(const Body *b);
int rows_head(const Head *h);

/* y = x / sqrt(mean(x^2) + eps) * weight of each row. */
void rows_norm(const void *x, const void *weight, void *y, long rows, long width, float eps, Type type);
#endif
