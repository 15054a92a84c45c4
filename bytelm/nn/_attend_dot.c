/* Attention of a few queries to a cache in bfloat16, on processors that multiply pairs of it: AVX512-BF16.
 *
 * Products of queries and keys are of bfloat16, all else is float32, in the order of the slots: a query has the same result
 * alone and among others, and however many slots there are that it does not see.
 */
#include <math.h>
#include <stdlib.h>

#include "_attend.h"
#include "_dot.h"

#ifdef DOT_SUPPORTED
#define LINE 64  /* bytes of a cache */
#define SLOTS 16 /* whose products are made side by side */
#define FLOATS 16
#define TOGETHER 4 /* queries that a value is added to when it was read */
#define EACH(i, n) _Pragma("GCC unroll 4") for (int i = 0; i < (n); i++)

/* Asks for n slots of a head, as far as there are so many. */
INLINE_DOT void ask(const uint16_t *from, long slot, long n, long slots, long width) {
    const char *at = (const char *)(from + slot * width), *end = (const char *)(from + slots * width);
    for (const char *to = at + n * width * 2; at < to && at < end; at += LINE) _mm_prefetch(at, _MM_HINT_T0);
}

/* The products of one query with all keys, of which there is at least one. */
static DOT void score(const uint16_t *q, const uint16_t *k, const uint16_t *v, long slots, long width, float *scores) {
    for (long s = 0; s < slots; s += SLOTS) {
        ask(k, s + SLOTS, SLOTS, slots, width);
        ask(v, s, SLOTS, slots, width);
        __m512 sums[SLOTS];
        long last = slots - 1 - s; /* stands in for those after it */
        for (int n = 0; n < SLOTS; n++) sums[n] = _mm512_setzero_ps();
        for (long e = 0; e < width; e += PAIRS) {
            __mmask32 mask = e + PAIRS <= width ? 0xFFFFFFFFu : 0xFFFFu;
            __m512bh of = dot_load_some(q + e, mask);
            _Pragma("GCC unroll 16") for (int n = 0; n < SLOTS; n++)
                sums[n] = _mm512_dpbf16_ps(sums[n], dot_load_some(k + (s + (n < last ? n : last)) * width + e, mask), of);
        }
        EACH(n, SLOTS / 4)
            _mm_storeu_ps(scores + s + 4 * n, dot_sums(sums[4 * n], sums[4 * n + 1], sums[4 * n + 2], sums[4 * n + 3]));
    }
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

/* The sums of the values of some queries, weighted. A load has the even numbers of a value, and then the odd. */
INLINE_DOT void add_values(const float *weights, const float *inverse, const uint16_t *v, uint16_t *y, long width,
                           long slots, long room, const int queries) {
    for (long e = 0; e < width; e += 2 * PAIRS) {
        long left = width - e; /* a multiple of half of PAIRS */
        const __mmask32 masks[2] = {left >= PAIRS ? ~0u : 0xFFFFu, left >= 2 * PAIRS ? ~0u : (left > PAIRS ? 0xFFFFu : 0)};
        __m512 even[2][TOGETHER], odd[2][TOGETHER];
        EACH(i, 2) EACH(r, queries) even[i][r] = odd[i][r] = _mm512_setzero_ps();
        for (long s = 0; s < slots; s++) {
            _mm_prefetch((const char *)(v + (s + SLOTS) * width + e), _MM_HINT_T0);
            _mm_prefetch((const char *)(v + (s + SLOTS) * width + e + PAIRS), _MM_HINT_T0);
            EACH(i, 2) {
                __m512i pairs = _mm512_maskz_loadu_epi16(masks[i], v + s * width + e + i * PAIRS);
                __m512 low = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
                __m512 high = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xFFFF0000)));
                EACH(r, queries) {
                    __m512 weight = _mm512_set1_ps(weights[r * room + s]);
                    even[i][r] = _mm512_fmadd_ps(weight, low, even[i][r]);
                    odd[i][r] = _mm512_fmadd_ps(weight, high, odd[i][r]);
                }
            }
        }
        EACH(i, 2) EACH(r, queries) {
            __m512 unit = _mm512_set1_ps(inverse[r]);
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(even[i][r], unit)));
            __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(odd[i][r], unit)));
            uint16_t *to = y + r * width + e + i * PAIRS;
            _mm512_mask_storeu_epi16(to, masks[i], _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
    }
}

/* All queries of the heads that share one head of keys and values. */
static DOT int attend(const Attention *a, long b, long g) {
    long per = a->heads / a->kv_heads, rows = per * a->queries, first = (b * a->heads + g * per) * a->queries;
    long width = a->width, slots = 0;
    for (long t = 0; t < a->queries; t++) slots = seen_by(a, b, t) > slots ? seen_by(a, b, t) : slots;
    long room = (slots + SLOTS - 1) / SLOTS * SLOTS, row = a->rows == NULL ? b : a->rows[b];
    const uint16_t *k = (const uint16_t *)a->k + row * a->k_batch + g * a->k_head;
    const uint16_t *v = (const uint16_t *)a->v + row * a->v_batch + g * a->v_head;
    const uint16_t *q = (const uint16_t *)a->q + first * width;
    uint16_t *y = (uint16_t *)a->y + first * width;
    float *scores = malloc(sizeof(float) * (size_t)(rows * (room + 1) + 1)), *inverse = scores + rows * room;
    if (scores == NULL) return 0;
    for (long r = 0; r < rows; r++) {
        const uint8_t *mask = a->mask == NULL ? NULL : a->mask + (b * a->queries + r % a->queries) * a->slots;
        score(q + r * width, k, v, slots, width, scores + r * room);
        inverse[r] = soften(scores + r * room, mask, seen_by(a, b, r % a->queries), room, a->scale);
    }
    for (long r = 0, n; r < rows; r += n) {
        const float *weights = scores + r * room;
        n = rows - r >= TOGETHER ? TOGETHER : (rows - r >= 2 ? 2 : 1);
        switch (n) {
            case 1: add_values(weights, inverse + r, v, y + r * width, width, slots, room, 1); break;
            case 2: add_values(weights, inverse + r, v, y + r * width, width, slots, room, 2); break;
            default: add_values(weights, inverse + r, v, y + r * width, width, slots, room, TOGETHER);
        }
    }
    free(scores);
    return 1;
}

int dot_attend(const Attention *a) {
    int done = 1;
    _Pragma("omp parallel for schedule(dynamic) num_threads(a->threads) reduction(&& : done)")
    for (long i = 0; i < a->batch * a->kv_heads; i++) done = attend(a, i / a->kv_heads, i % a->kv_heads) && done;
    return done;
}
#else
int dot_attend(const Attention *a) { return 0; }
#endif
