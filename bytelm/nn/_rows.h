/* What the parts of the native core for few rows share. AVX2 with FMA. */
#pragma once
#include "_numbers.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ROWS_SUPPORTED
#include <immintrin.h>

#define LANES 8
#define STEP 16     /* inputs at a time; their number is a multiple of it */
#define OUTPUTS 24  /* a block that one thread takes; a multiple of the outputs at a time */
#define LEAST 6     /* outputs */
#define AVX2 __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) AVX2

typedef struct {
    const void *x;        /* [rows, inputs], as the loads of the products read them: float32, or int16 where there are unit */
    const float *unit;    /* [rows, groups of inputs], in the order of x: of its int16 */
    const void *weight;   /* [outputs, inputs] */
    const float *scale;   /* [outputs], where the weight is int8 */
    const uint16_t *bias; /* [outputs], bfloat16, or NULL */
    uint16_t *y;          /* [rows, outputs], bfloat16; or NULL */
    float *floats;        /* the same in float32, where y is NULL */
    long rows, outputs, inputs;
    int threads;
} Product;

/* y = x weight^T * scale + bias of rows in their own order, float32 if the weight is; 0 where there is no memory. */
int rows_multiply(Product *p, const void *x, Type weight);

/* Some outputs of rows that were packed. */
void rows_block_bf16(const Product *p, long block);
void rows_block_float(const Product *p, long block);

/* The rows as products read them. */
void rows_pack_bf16(const uint16_t *x, float *to, long rows, long inputs);
void rows_pack_float(const float *x, float *to, long rows, long inputs);

INLINE void load_bf16(const uint16_t *w, __m256 *low, __m256 *high) {
    __m256i pairs = _mm256_loadu_si256((const __m256i *)w);
    *low = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    *high = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xFFFF0000)));
}

INLINE void load_float(const float *w, __m256 *low, __m256 *high) {
    *low = _mm256_loadu_ps(w);
    *high = _mm256_loadu_ps(w + LANES);
}
#endif
