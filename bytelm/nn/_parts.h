/* What blocks and heads have in common, in bfloat16 and float32. */
#pragma once
#include <math.h>

#include "_rows.h"

#ifdef ROWS_SUPPORTED
INLINE float silu(float x) { return x / (1 + exponential(-x)); }

static inline long larger(long one, long other) { return one > other ? one : other; }

/* What is written once, for both kinds of numbers. */
#define FOR_BOTH(DEFINE)                                                                                               \
    DEFINE(uint16_t, bf16, from_bf16, to_bf16)                                                                         \
    DEFINE(float, float, from_float, to_float)

#define DEFINE_SILU(TYPE, NAME, FROM, TO)                                                                              \
    AVX2 static void silu_##NAME(TYPE *restrict x, long n) {                                                           \
        for (long i = 0; i < n; i++) x[i] = TO(silu(FROM(x[i])));                                                      \
    }

#define DEFINE_NORM(TYPE, NAME, FROM, TO)                                                                              \
    AVX2 static void norm_##NAME(const TYPE *restrict x, const TYPE *restrict weight, TYPE *restrict y, long rows,     \
                                 long width, float eps) {                                                              \
        for (long r = 0; r < rows; r++, x += width, y += width) {                                                      \
            float sum = 0;                                                                                             \
            _Pragma("omp simd reduction(+ : sum)") for (long d = 0; d < width; d++) sum += FROM(x[d]) * FROM(x[d]);    \
            float inverse = 1 / sqrtf(sum / (float)width + eps);                                                       \
            for (long d = 0; d < width; d++) y[d] = TO(FROM(TO(FROM(x[d]) * inverse)) * FROM(weight[d]));              \
        }                                                                                                              \
    }

#define DEFINE_SHARED(TYPE, NAME, FROM, TO)                                                                            \
    AVX2 static void add_##NAME(TYPE *restrict x, const TYPE *restrict y, long n) {                                    \
        for (long i = 0; i < n; i++) x[i] = TO(FROM(x[i]) + FROM(y[i]));                                               \
    }                                                                                                                  \
    static int linear_##NAME(const TYPE *x, const void *weight, TYPE *y, long rows, long outputs, long inputs,         \
                             int threads) {                                                                            \
        Product p = {.weight = weight, .rows = rows, .outputs = outputs, .inputs = inputs, .threads = threads};        \
        if (sizeof(TYPE) == 4) p.floats = (float *)(void *)y;                                                          \
        else p.y = (uint16_t *)(void *)y;                                                                              \
        return rows_multiply(&p, x, sizeof(TYPE) == 4 ? FLOAT32 : BFLOAT16);                                           \
    }
#endif
