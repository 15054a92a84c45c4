/* Attention of a few queries to a cache with vectors of 512 bits, in bfloat16 or float32.
 *
 * Products of queries and keys in bfloat16 are those of pairs (AVX512-BF16); all else is float32, in the order of the
 * slots: a query has the same result alone and among others, and however many slots there are that it does not see.
 */
#include <math.h>
#include <stdlib.h>

#include "_attend.h"
#include "_dot.h"

#ifdef DOT_SUPPORTED
#define LINE 64    /* bytes of a cache */
#define SLOTS 16   /* whose products are made side by side */
#define FLOATS 16
#define TOGETHER 4 /* queries that a value is added to when it was read */
#define EACH(i, n) _Pragma("GCC unroll 4") for (int i = 0; i < (n); i++)

/* Asks for the numbers from one to another, as far as there are so many. */
INLINE_DOT void ask(const void *from, long begin, long end, long most, long size) {
    const char *at = (const char *)from + begin * size, *to = (const char *)from + (end < most ? end : most) * size;
    for (; at < to; at += LINE) _mm_prefetch(at, _MM_HINT_T0);
}

/* Asks for a line, which need not be there. */
INLINE_DOT void ask_line(const void *from, int n) { _mm_prefetch((const char *)from + n * LINE, _MM_HINT_T0); }

/* The lanes of the nth vector of PAIRS numbers that there are, where `left` of them, in FLOATS, are left. */
INLINE_DOT __mmask32 lanes(long left, int n) {
    return left >= (n + 1) * PAIRS ? ~0u : (left > n * PAIRS ? 0xFFFFu : 0);
}

INLINE_DOT __m512 multiply_bf16(const uint16_t *q, const uint16_t *k, long left, __m512 sum) {
    __mmask32 mask = lanes(left, 0);
    return _mm512_dpbf16_ps(sum, dot_load_some(k, mask), dot_load_some(q, mask));
}

INLINE_DOT __m512 multiply_float(const float *q, const float *k, long left, __m512 sum) {
    return _mm512_fmadd_ps(_mm512_loadu_ps(k), _mm512_loadu_ps(q), sum);
}

/* Four vectors of a value: of bfloat16 the even numbers of each load, and the odd. */
INLINE_DOT void read_bf16(const uint16_t *v, long left, __m512 of[4]) {
    EACH(i, 2) {
        __m512i pairs = _mm512_maskz_loadu_epi16(lanes(left, i), v + i * PAIRS);
        of[2 * i] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
        of[2 * i + 1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xFFFF0000)));
    }
}

INLINE_DOT void read_float(const float *v, long left, __m512 of[4]) {
    EACH(i, 4) of[i] = _mm512_maskz_loadu_ps(left > i * FLOATS ? 0xFFFF : 0, v + i * FLOATS);
}

INLINE_DOT void write_bf16(uint16_t *y, long left, const __m512 of[4]) {
    EACH(i, 2) {
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(of[2 * i]));
        __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(of[2 * i + 1]));
        _mm512_mask_storeu_epi16(y + i * PAIRS, lanes(left, i), _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
}

INLINE_DOT void write_float(float *y, long left, const __m512 of[4]) {
    EACH(i, 4) _mm512_mask_storeu_ps(y + i * FLOATS, left > i * FLOATS ? 0xFFFF : 0, of[i]);
}

/* Scores to weights, up to a factor: its inverse is returned. A query that sees nothing gives zeros. `room` is `slots`
 * filled up to a multiple of FLOATS. */
static DOT float soften(float *restrict scores, const uint8_t *restrict mask, long seen, long room, float scale) {
    float most = -INFINITY, sum = 0;
    for (long s = seen; s < room; s++) scores[s] = -INFINITY;
    if (mask != NULL)
        for (long s = 0; s < seen; s++) scores[s] = mask[s] ? scores[s] : -INFINITY;
    _Pragma("omp simd reduction(max : most)") for (long s = 0; s < room; s++) most =
        scores[s] > most ? scores[s] : most;
    float parts[FLOATS] = {0};
    for (long s = 0; s < room; s += FLOATS)
        for (long l = 0; l < FLOATS; l++) {
            float weight = exponential((scores[s + l] - most) * scale);
            scores[s + l] = scores[s + l] == -INFINITY ? 0 : weight;
            parts[l] += scores[s + l];
        }
    for (long l = 0; l < FLOATS; l++) sum += parts[l];
    return sum > 0 ? 1 / sum : (sum == sum ? 0 : NAN);
}

#define DEFINE_ATTEND(TYPE, NAME, PER)                                                                                 \
    /* The products of one query with all keys, of which there is at least one. */                                     \
    static DOT void score_##NAME(const TYPE *q, const TYPE *k, const TYPE *v, long slots, long width, float *scores) { \
        for (long s = 0; s < slots; s += SLOTS) {                                                                      \
            __m512 sums[SLOTS];                                                                                        \
            long last = slots - 1 - s; /* stands in for those after it */                                              \
            ask(k, (s + SLOTS) * width, (s + 2 * SLOTS) * width, slots * width, sizeof(TYPE));                         \
            ask(v, s * width, (s + SLOTS) * width, slots * width, sizeof(TYPE));                                       \
            _Pragma("GCC unroll 16") for (int n = 0; n < SLOTS; n++) sums[n] = _mm512_setzero_ps();                    \
            for (long e = 0; e < width; e += PER)                                                                      \
                _Pragma("GCC unroll 16") for (int n = 0; n < SLOTS; n++)                                               \
                    sums[n] = multiply_##NAME(q + e, k + (s + (n < last ? n : last)) * width + e, width - e, sums[n]); \
            EACH(n, SLOTS / 4)                                                                                         \
                _mm_storeu_ps(scores + s + 4 * n,                                                                      \
                              dot_sums(sums[4 * n], sums[4 * n + 1], sums[4 * n + 2], sums[4 * n + 3]));               \
        }                                                                                                              \
    }                                                                                                                  \
    /* The sums of the values of some queries, weighted: two vectors of each load of two. */                           \
    INLINE_DOT void add_values_##NAME(const float *weights, const float *inverse, const TYPE *v, TYPE *y, long width,  \
                                      long slots, long room, const int queries) {                                      \
        for (long e = 0; e < width; e += 4 * FLOATS) {                                                                 \
            __m512 sums[4][TOGETHER];                                                                                  \
            EACH(i, 4) EACH(r, queries) sums[i][r] = _mm512_setzero_ps();                                              \
            for (long s = 0; s < slots; s++) {                                                                         \
                __m512 of[4];                                                                                          \
                EACH(i, (int)sizeof(TYPE)) ask_line(v + (s + SLOTS) * width + e, i);                                   \
                read_##NAME(v + s * width + e, width - e, of);                                                         \
                EACH(r, queries) {                                                                                     \
                    __m512 weight = _mm512_set1_ps(weights[r * room + s]);                                             \
                    EACH(i, 4) sums[i][r] = _mm512_fmadd_ps(weight, of[i], sums[i][r]);                                \
                }                                                                                                      \
            }                                                                                                          \
            EACH(r, queries) {                                                                                         \
                __m512 unit = _mm512_set1_ps(inverse[r]), of[4];                                                       \
                EACH(i, 4) of[i] = _mm512_mul_ps(sums[i][r], unit);                                                    \
                write_##NAME(y + r * width + e, width - e, of);                                                        \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    /* All queries of the heads that share one head of keys and values. */                                             \
    static DOT int attend_##NAME(const Attention *a, long b, long g) {                                                 \
        long per = a->heads / a->kv_heads, rows = per * a->queries, first = (b * a->heads + g * per) * a->queries;     \
        long width = a->width, slots = 0;                                                                              \
        for (long t = 0; t < a->queries; t++) slots = seen_by(a, b, t) > slots ? seen_by(a, b, t) : slots;             \
        long room = (slots + SLOTS - 1) / SLOTS * SLOTS, row = a->rows == NULL ? b : a->rows[b];                       \
        const TYPE *k = (const TYPE *)a->k + row * a->k_batch + g * a->k_head;                                         \
        const TYPE *v = (const TYPE *)a->v + row * a->v_batch + g * a->v_head;                                         \
        const TYPE *q = (const TYPE *)a->q + first * width;                                                            \
        TYPE *y = (TYPE *)a->y + first * width;                                                                        \
        float *scores = malloc(sizeof(float) * (size_t)(rows * (room + 1) + 1)), *inverse = scores + rows * room;      \
        if (scores == NULL) return 0;                                                                                  \
        for (long r = 0; r < rows; r++) {                                                                              \
            const uint8_t *mask = a->mask == NULL ? NULL : a->mask + (b * a->queries + r % a->queries) * a->slots;     \
            score_##NAME(q + r * width, k, v, slots, width, scores + r * room);                                        \
            inverse[r] = soften(scores + r * room, mask, seen_by(a, b, r % a->queries), room, a->scale);               \
        }                                                                                                              \
        for (long r = 0, n; r < rows; r += n) {                                                                        \
            const float *weights = scores + r * room;                                                                  \
            TYPE *to = y + r * width;                                                                                  \
            n = rows - r >= TOGETHER ? TOGETHER : (rows - r >= 2 ? 2 : 1);                                             \
            switch (n) {                                                                                               \
                case 1: add_values_##NAME(weights, inverse + r, v, to, width, slots, room, 1); break;                  \
                case 2: add_values_##NAME(weights, inverse + r, v, to, width, slots, room, 2); break;                  \
                default: add_values_##NAME(weights, inverse + r, v, to, width, slots, room, TOGETHER);                 \
            }                                                                                                          \
        }                                                                                                              \
        free(scores);                                                                                                  \
        return 1;                                                                                                      \
    }

DEFINE_ATTEND(uint16_t, bf16, PAIRS)
DEFINE_ATTEND(float, float, FLOATS)

int dot_attend(const Attention *a) {
    int done = 1;
    _Pragma("omp parallel for schedule(dynamic) num_threads(a->threads) reduction(&& : done)")
    for (long i = 0; i < a->batch * a->kv_heads; i++)
        done = (a->type == FLOAT32 ? attend_float : attend_bf16)(a, i / a->kv_heads, i % a->kv_heads) && done;
    return done;
}
#else
int dot_attend(const Attention *a) { return 0; }
#endif
