/* The blocks of a body, and chained heads, for a few rows: what lies between products in the same pass over memory. */
#pragma once
#include "_attend.h"
#include "_matches.h"
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
    const int64_t *prefix; /* [rows, stride], of which the first `known` are read */
    const void *up, *down; /* [inner, width + known byte_width + told_width], [width, inner]; or NULL: no MLP */
    const void *added;     /* [rows, width], or NULL */
    const void *told;      /* [rows, told_width]: what the MLP reads behind the prefix */
    const void *norm, *unembedding;
    void *logits;          /* [rows, vocabulary] */
    long rows, known, stride, width, byte_width, told_width, inner, vocabulary;
    Type type;
    float eps;
    int threads;
} Head;

typedef struct {
    const void *rows;       /* [num_orders num_rows, row_width], and those of matches; of int8 where there are scales */
    const float *scales;    /* of each row, or NULL */
    const void *projection; /* [width, row_width], or NULL where rows are as wide as the state */
    const int64_t *orders;
    const int32_t *keys;    /* [num_orders (num_rows - 1)], sorted: of the n-grams that have rows; or NULL */
    const int64_t *windows; /* [rows, window]: symbols before those of a prefix */
    int64_t *found;         /* [rows, num_read]: room for where rows are */
    Matches matches;
    long num_orders, num_rows, row_width, window, num_read;
} Tables;

typedef struct {
    Head head;             /* `known` symbols of each prefix are given; the next `count` are written there */
    const void *const *of; /* for each symbol that is drawn: unembedding, up, down */
    Tables tables;
    int64_t *symbols;      /* the prefixes */
    void *logits;          /* [count, rows, vocabulary] */
    double *nats;          /* [rows, count] */
    const double *noise;   /* [rows / states, states count, vocabulary], noise_row apart; NULL: the largest logit is taken */
    long count, states, noise_row;
    float temperature;
} Draw;

typedef struct {
    const int64_t *symbols;                   /* [rows, window], of which the last `patch` are merged */
    const void *embedding, *projection;       /* [vocabulary, byte_width], [width, patch byte_width] */
    const void *up, *down;                    /* [inner, patch byte_width], [width, inner], or NULL */
    Tables tables;
    void *y;                                  /* [rows, width] */
    long rows, window, patch, width, byte_width, inner;
    Type type;
    int threads;
} Merger;

typedef struct {
    Tables tables; /* whose `windows` are the ends of texts */
    void *y;       /* [num, row_width] */
    long num;
    Type type;
} Sums;

/* 0 where there is no memory. */
int rows_body(const Body *b);
int rows_head(const Head *h);

/* Each symbol: the largest of logits / temperature + noise, given those before it. */
int rows_draw(const Draw *d);

/* projection(x) + down(silu(up(x))) + rows of tables, x the embeddings of a window. */
int rows_merge(const Merger *m);

/* The sum of the rows of n-grams and matches that end each window, before its projection. */
int rows_sum(const Sums *s);

/* y = x / sqrt(mean(x^2) + eps) * weight of each row. */
void rows_norm(const void *x, const void *weight, void *y, long rows, long width, float eps, Type type);
#endif
