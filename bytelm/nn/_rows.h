/* What the parts of the native core for few rows share: products, attention, blocks. AVX2 with FMA. */
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

typedef enum { BFLOAT16, FLOAT32, INT8 } Type;

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

/* y = x weight^T * scale + bias of rows in their own order, float32 if the weight is; 0 where there is no memory. */
int rows_multiply(Product *p, const void *x, Type weight);

/* Some outputs of rows that were packed. */
void rows_block_bf16(const Product *p, long block);
void rows_block_float(const Product *p, long block);

/* The rows as products read them. */
void rows_pack_bf16(const uint16_t *x, float *to, long rows, long inputs);
void rows_pack_float(const float *x, float *to, long rows, long inputs);

/* 0 where there is no memory. */
int rows_attend(const Attention *a);

INLINE void load_bf16(const uint16_t *w, __m256 *low, __m256 *high) {
    __m256i pairs = _mm256_loadu_si256((const __m256i *)w);
    *low = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    *high = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xFFFF0000)));
}

INLINE void load_float(const float *w, __m256 *low, __m256 *high) {
    *low = _mm256_loadu_ps(w);
    *high = _mm256_loadu_ps(w + LANES);
}
/* e^x (Cody and Waite 1980): 2^n times a polynomial on |r| <= log(2) / 2, within 2 units in the last place. */
INLINE float exponential(float x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23, by which a sum is rounded to a whole number */
    x = x > 88.0f ? 88.0f : (x < -87.0f ? -87.0f : x);
    float n = (x * 1.44269504f + shift) - shift;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}
#endif
