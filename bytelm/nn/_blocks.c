#include "_blocks.h"

#include <math.h>
#include <stdlib.h>

#include "_parts.h"

#ifdef ROWS_SUPPORTED
#define DEFINE_PARTS(TYPE, NAME, FROM, TO)                                                                             \
    AVX2 static void turn_##NAME(const TYPE *restrict x, TYPE *restrict y, const float *restrict angles, long width,   \
                                 long turned) {                                                                        \
        long half = turned / 2;                                                                                        \
        const float *restrict cos = angles, *restrict sin = angles + half;                                             \
        for (long i = 0; i < half; i++) {                                                                              \
            float low = FROM(x[i]), high = FROM(x[i + half]);                                                          \
            y[i] = TO(low * cos[i] - high * sin[i]);                                                                   \
            y[i + half] = TO(high * cos[i] + low * sin[i]);                                                            \
        }                                                                                                              \
        memcpy(y + turned, x + turned, sizeof(TYPE) * (size_t)(width - turned));                                       \
    }                                                                                                                  \
    /* Queries by head, and keys and values into the cache. */                                                         \
    static void spread_##NAME(const Body *b, const Block *block, const float *angles, const TYPE *x, TYPE *q) {        \
        long e = b->head_width;                                                                                        \
        for (long i = 0; i < b->batch; i++)                                                                            \
            for (long t = 0; t < b->steps; t++, angles += b->turned) {                                                 \
                long row = b->rows == NULL ? i : b->rows[i], slot = b->positions[i * b->steps + t];                    \
                long first = row * b->kv_heads * b->capacity + slot;                                                   \
                for (long h = 0; h < b->heads; h++, x += e)                                                            \
                    turn_##NAME(x, q + ((i * b->heads + h) * b->steps + t) * e, angles, e, b->turned);                 \
                for (long g = 0; g < b->kv_heads; g++, x += e)                                                         \
                    turn_##NAME(x, (TYPE *)block->keys + (first + g * b->capacity) * e, angles, e, b->turned);         \
                for (long g = 0; g < b->kv_heads; g++, x += e)                                                         \
                    memcpy((TYPE *)block->values + (first + g * b->capacity) * e, x, sizeof(TYPE) * (size_t)e);        \
            }                                                                                                          \
    }                                                                                                                  \
    static void gather_##NAME(const Body *b, const TYPE *y, TYPE *x) {                                                 \
        for (long i = 0; i < b->batch; i++)                                                                            \
            for (long h = 0; h < b->heads; h++)                                                                        \
                for (long t = 0; t < b->steps; t++, y += b->head_width)                                                \
                    memcpy(x + ((i * b->steps + t) * b->heads + h) * b->head_width, y,                                 \
                           sizeof(TYPE) * (size_t)b->head_width);                                                      \
    }                                                                                                                  \
    AVX2 static void gate_##NAME(const TYPE *restrict x, TYPE *restrict y, long rows, long inner) {                    \
        for (long r = 0; r < rows; r++, x += 2 * inner, y += inner)                                                    \
            for (long i = 0; i < inner; i++) y[i] = TO(FROM(TO(silu(FROM(x[i])))) * FROM(x[inner + i]));               \
    }                                                                                                                  \
    static int block_##NAME(const Body *b, const Block *block, const float *angles, TYPE *one, TYPE *other) {          \
        long rows = b->batch * b->steps, width = b->width, wide = b->heads * b->head_width;                            \
        TYPE *x = b->x;                                                                                                \
        norm_##NAME(x, block->attention_norm, one, rows, width, b->attention_eps);                                     \
        if (!linear_##NAME(one, block->query_key_value, other, rows, wide + 2 * b->kv_heads * b->head_width, width,    \
                           b->threads))                                                                                \
            return 0;                                                                                                  \
        spread_##NAME(b, block, angles, other, one);                                                                   \
        long head = b->capacity * b->head_width;                                                                       \
        Attention a = {.q = one, .k = block->keys, .v = block->values, .rows = b->rows, .last = b->last, .y = other,   \
                       .type = b->type, .batch = b->batch, .heads = b->heads, .kv_heads = b->kv_heads,                 \
                       .queries = b->steps, .slots = b->slots, .width = b->head_width,                                 \
                       .k_batch = b->kv_heads * head, .k_head = head, .v_batch = b->kv_heads * head, .v_head = head,   \
                       .scale = b->scale, .threads = b->threads};                                                      \
        if (!rows_attend(&a)) return 0;                                                                                \
        gather_##NAME(b, other, one);                                                                                  \
        if (!linear_##NAME(one, block->output, other, rows, width, wide, b->threads)) return 0;                        \
        add_##NAME(x, other, rows * width);                                                                            \
        norm_##NAME(x, block->feedforward_norm, one, rows, width, b->feedforward_eps);                                 \
        if (!linear_##NAME(one, block->gate_up, other, rows, 2 * b->inner, width, b->threads)) return 0;               \
        gate_##NAME(other, one, rows, b->inner);                                                                       \
        if (!linear_##NAME(one, block->down, other, rows, width, b->inner, b->threads)) return 0;                      \
        add_##NAME(x, other, rows * width);                                                                            \
        return 1;                                                                                                      \
    }

FOR_BOTH(DEFINE_NORM)
FOR_BOTH(DEFINE_SHARED)
FOR_BOTH(DEFINE_PARTS)

/* Cosines and then sines of each pair, at each position. */
static void find_angles(const Body *b, float *angles) {
    long half = b->turned / 2;
    for (long i = 0; i < b->batch * b->steps; i++)
        for (long pair = 0; pair < half; pair++) {
            float angle = (float)b->positions[i] * b->frequencies[pair];
            angles[i * b->turned + pair] = cosf(angle);
            angles[i * b->turned + half + pair] = sinf(angle);
        }
}

int rows_body(const Body *b) {
    long rows = b->batch * b->steps, wide = (b->heads + 2 * b->kv_heads) * b->head_width;
    long room = rows * larger(larger(wide, b->width), 2 * b->inner);
    float *memory = malloc(sizeof(float) * (size_t)(2 * room + rows * b->turned)), *other = memory + room;
    if (memory == NULL) return 0;
    float *angles = other + room;
    find_angles(b, angles);
    int done = 1;
    for (long i = 0; done && i < b->num_blocks; i++) {
        if (b->type == FLOAT32) done = block_float(b, b->blocks + i, angles, memory, other);
        else done = block_bf16(b, b->blocks + i, angles, (uint16_t *)memory, (uint16_t *)other);
    }
    free(memory);
    return done;
}

void rows_norm(const void *x, const void *weight, void *y, long rows, long width, float eps, Type type) {
    if (type == FLOAT32) norm_float(x, weight, y, rows, width, eps);
    else norm_bf16(x, weight, y, rows, width, eps);
}
#endif
