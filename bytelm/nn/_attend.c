/* Attention of a few queries to a cache, in bfloat16 or float32, where there is no unit for _attend_dot.c.
 *
 * Sums are float32, in the order of the slots: a query has the same result alone and among others, and however many
 * slots there are that it does not see.
 */
#include <math.h>
#include <stdlib.h>

#include "_attend.h"
#include "_rows.h"
#include "_rows_dot.h"

#ifdef ROWS_SUPPORTED
/* Scores to weights, up to a factor: its inverse is returned. A query that sees nothing gives zeros. */
static AVX2 float soften(float *restrict scores, const uint8_t *restrict mask, long seen, long slots, float scale) {
    float most = -INFINITY, parts[LANES] = {0};
    if (mask != NULL)
        for (long s = 0; s < seen; s++) scores[s] = mask[s] ? scores[s] : -INFINITY;
    _Pragma("omp simd reduction(max : most)") for (long s = 0; s < seen; s++) most =
        scores[s] > most ? scores[s] : most;
    _Pragma("omp simd") for (long s = 0; s < seen; s++) {
        float weight = exponential((scores[s] - most) * scale);
        scores[s] = scores[s] == -INFINITY ? 0 : weight;
    }
    for (long s = 0; s < seen; s += LANES)
        for (long l = 0; l < LANES && s + l < seen; l++) parts[l] += scores[s + l];
    memset(scores + seen, 0, sizeof(float) * (size_t)(slots - seen));
    float sum = 0;
    for (long l = 0; l < LANES; l++) sum += parts[l];
    return sum > 0 ? 1 / sum : (sum == sum ? 0 : NAN);
}

/* Adds n slots to the sums of one query, in their order. */
#define DEFINE_ADD_VALUES(TYPE, NAME)                                                                                  \
    INLINE void add_values_##NAME(const float *weights, const TYPE *v, float *sums, long width, long n) {              \
        for (long e = 0; e < width; e += STEP) {                                                                       \
            __m256 even = _mm256_loadu_ps(sums + e), odd = _mm256_loadu_ps(sums + e + LANES);                          \
            for (long s = 0; s < n; s++) {                                                                             \
                __m256 low, high, weight = _mm256_broadcast_ss(weights + s);                                           \
                load_##NAME(v + s * width + e, &low, &high);                                                           \
                even = _mm256_fmadd_ps(weight, low, even);                                                             \
                odd = _mm256_fmadd_ps(weight, high, odd);                                                              \
            }                                                                                                          \
            _mm256_storeu_ps(sums + e, even);                                                                          \
            _mm256_storeu_ps(sums + e + LANES, odd);                                                                   \
        }                                                                                                              \
    }

/* Where the sum of number i of a value is: those of bfloat16 lie as a load has them. */
INLINE long place_bf16(long i) { return i / STEP * STEP + i % STEP / 2 + i % 2 * LANES; }
INLINE long place_float(long i) { return i; }

/* All queries of the heads that share one head of keys and values. */
#define DEFINE_ATTEND(TYPE, NAME, TO)                                                                                  \
    DEFINE_ADD_VALUES(TYPE, NAME)                                                                                      \
    static AVX2 int attend_##NAME(const Attention *a, long b, long g) {                                                \
        long per = a->heads / a->kv_heads, rows = per * a->queries, first = (b * a->heads + g * per) * a->queries;     \
        long width = a->width, slots = 0;                                                                              \
        for (long t = 0; t < a->queries; t++) slots = seen_by(a, b, t) > slots ? seen_by(a, b, t) : slots;             \
        long room = slots < LEAST ? LEAST : slots;                                                                     \
        long row = a->rows == NULL ? b : a->rows[b];                                                                   \
        const TYPE *k = (const TYPE *)a->k + row * a->k_batch + g * a->k_head;                                         \
        const TYPE *v = (const TYPE *)a->v + row * a->v_batch + g * a->v_head;                                         \
        float *memory = calloc((size_t)(rows * (2 * width + room + 1) + LEAST * width), sizeof(float));                \
        if (memory == NULL) return 0;                                                                                  \
        float *x = memory, *sums = x + rows * width, *scores = sums + rows * width, *inverse = scores + rows * room;   \
        if (slots < LEAST) k = memcpy(inverse + rows, k, sizeof(TYPE) * (size_t)(slots * width)); /* zeros follow */   \
        rows_pack_##NAME((const TYPE *)a->q + first * width, x, rows, width);                                          \
        Product product = {                                                                                            \
            .x = x, .weight = k, .floats = scores, .rows = rows, .outputs = room, .inputs = width, .threads = 1};      \
        for (long block = 0; block * OUTPUTS < room; block++) rows_block_##NAME(&product, block);                      \
        for (long r = 0; r < rows; r++) {                                                                              \
            const uint8_t *mask =                                                                                      \
                a->mask == NULL ? NULL : a->mask + (b * a->queries + r % a->queries) * a->slots;                       \
            inverse[r] = soften(scores + r * room, mask, seen_by(a, b, r % a->queries), slots, a->scale);              \
        }                                                                                                              \
        for (long s = 0; s < slots; s += LANES) {                                                                      \
            long n = slots - s < LANES ? slots - s : LANES;                                                            \
            for (long r = 0; r < rows; r++)                                                                            \
                add_values_##NAME(scores + r * room + s, v + s * width, sums + r * width, width, n);                   \
        }                                                                                                              \
        TYPE *y = (TYPE *)a->y + first * width;                                                                        \
        for (long r = 0; r < rows; r++)                                                                                \
            for (long i = 0; i < width; i++) y[r * width + i] = TO(sums[r * width + place_##NAME(i)] * inverse[r]);    \
        free(memory);                                                                                                  \
        return 1;                                                                                                      \
    }

DEFINE_ATTEND(uint16_t, bf16, to_bf16)
DEFINE_ATTEND(float, float, to_float)

int rows_attend(const Attention *a) {
    if (dot_supported()) return dot_attend(a);
    int done = 1;
    _Pragma("omp parallel for schedule(dynamic) num_threads(a->threads) reduction(&& : done)")
    for (long i = 0; i < a->batch * a->kv_heads; i++)
        done = (a->type == FLOAT32 ? attend_float : attend_bf16)(a, i / a->kv_heads, i % a->kv_heads) && done;
    return done;
}
#endif
