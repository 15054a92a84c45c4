/* Matrices of bfloat16 times rows of bfloat16 on processors that multiply pairs of them: AVX512-BF16.
 *
 * A matrix is read once for up to MAX_ROWS rows. Sums are float32, of parts that each add one pair of inputs of
 * every PAIRS, in an order that does not depend on the number of rows: a row has the same result alone and among others.
 * As the instruction has it, subnormal numbers are zero.
 */
#include <stdint.h>
#include <string.h>

#include "_dot.h"
#include "_rows_dot.h"

#ifdef DOT_SUPPORTED
#define MAX_ROWS 8  /* in registers, with 2 outputs */
#define OUTPUTS 24  /* a block that one thread takes; a multiple of the outputs at a time */
#define CHUNK 8192  /* inputs of all rows of a group that are read before those of the next outputs */

typedef struct {
    const uint16_t *x, *weight, *bias; /* [rows, inputs], [outputs, inputs], [outputs] or NULL */
    uint16_t *y;                       /* [rows, outputs] */
    long rows, outputs, inputs;
} Product;

/* Up to four outputs of a row from one on. */
INLINE_DOT void finish(const Product *p, long row, long output, long n, __m128 sums) {
    __mmask8 mask = (__mmask8)((1u << n) - 1);
    if (p->bias != NULL) {
        __m128i bias = _mm_cvtepu16_epi32(_mm_maskz_loadu_epi16(mask, p->bias + output));
        sums = _mm_add_ps(sums, _mm_castsi128_ps(_mm_slli_epi32(bias, 16)));
    }
    _mm_mask_storeu_epi16(p->y + row * p->outputs + output, mask, (__m128i)_mm_cvtneps_pbh(sums));
}

/* A loop that is unrolled, so that what it indexes stays in registers. */
#define ALL(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)
#define DEFINE_GROUP(ROWS, OUTS)                                                                                       \
    INLINE_DOT void add_##ROWS(const Product *p, const uint16_t *x, const uint16_t *w, long i, __mmask32 mask,         \
                               __m512 acc[OUTS][ROWS]) {                                                               \
        __m512bh of[ROWS];                                                                                             \
        ALL(r, ROWS) of[r] = dot_load_some(x + r * p->inputs + i, mask);                                               \
        ALL(k, OUTS) {                                                                                                 \
            __m512bh weights = dot_load_some(w + k * p->inputs + i, mask);                                             \
            ALL(r, ROWS) acc[k][r] = _mm512_dpbf16_ps(acc[k][r], weights, of[r]);                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static DOT void group_##ROWS(const Product *p, long row, long begin, long end) {                                   \
        const uint16_t *x = p->x + row * p->inputs;                                                                    \
        __m512 sums[OUTPUTS][ROWS];                                                                                    \
        for (long from = 0, to; from < p->inputs; from = to) {                                                         \
            to = from + CHUNK / ROWS / PAIRS * PAIRS;                                                                  \
            if (to > p->inputs) to = p->inputs;                                                                        \
            for (long o = begin; o < end; o += OUTS) {                                                                 \
                long at = o + OUTS <= p->outputs ? o : p->outputs - OUTS, i = from; /* the last ones may come twice */ \
                const uint16_t *w = p->weight + at * p->inputs;                                                        \
                ask_early(p->weight, p->inputs * 2, at + OUTS, OUTS, p->outputs, from * 2);                            \
                __m512 acc[OUTS][ROWS];                                                                                \
                ALL(k, OUTS)                                                                                           \
                    ALL(r, ROWS) acc[k][r] = from > 0 ? sums[o - begin + k][r] : _mm512_setzero_ps();                  \
                for (; i + PAIRS <= to; i += PAIRS) add_##ROWS(p, x, w, i, 0xFFFFFFFFu, acc);                          \
                if (i < to) add_##ROWS(p, x, w, i, 0xFFFFu, acc);                                                      \
                if (to < p->inputs) {                                                                                  \
                    ALL(k, OUTS)                                                                                       \
                        ALL(r, ROWS) sums[o - begin + k][r] = acc[k][r];                                               \
                    continue;                                                                                          \
                }                                                                                                      \
                _Pragma("GCC unroll 2") for (int k = 0; k < OUTS; k += 4)                                              \
                    ALL(r, ROWS)                                                                                       \
                        finish(p, row + r, at + k, OUTS - k < 4 ? OUTS - k : 4,                                        \
                               dot_sums(acc[k][r], acc[LAST(k + 1, OUTS)][r], acc[LAST(k + 2, OUTS)][r],               \
                                        acc[LAST(k + 3, OUTS)][r]));                                                   \
            }                                                                                                          \
        }                                                                                                              \
    }
#define LAST(k, outs) ((k) < (outs) ? (k) : (outs) - 1)

DEFINE_GROUP(1, 6)
DEFINE_GROUP(2, 6)
DEFINE_GROUP(3, 4)
DEFINE_GROUP(4, 4)
DEFINE_GROUP(5, 4)
DEFINE_GROUP(6, 3)
DEFINE_GROUP(7, 3)
DEFINE_GROUP(8, 2)

/* Some outputs of all rows. */
static void block(const Product *p, long begin, long end) {
    for (long row = 0; row < p->rows; row += MAX_ROWS) {
        switch (p->rows - row) {
            case 1: group_1(p, row, begin, end); break;
            case 2: group_2(p, row, begin, end); break;
            case 3: group_3(p, row, begin, end); break;
            case 4: group_4(p, row, begin, end); break;
            case 5: group_5(p, row, begin, end); break;
            case 6: group_6(p, row, begin, end); break;
            case 7: group_7(p, row, begin, end); break;
            default: group_8(p, row, begin, end);
        }
    }
}

static void block_of(const Product *p, long b) {
    block(p, b * OUTPUTS, (b + 1) * OUTPUTS < p->outputs ? (b + 1) * OUTPUTS : p->outputs);
}

static int allowed = 1;

int dot_allow(int use) {
    int before = allowed;
    allowed = use;
    return before;
}

int dot_supported(void) {
    return allowed && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl");
}

void dot_linear(const uint16_t *x, const uint16_t *weight, const uint16_t *bias, uint16_t *y, long rows, long outputs,
                long inputs, int threads) {
    Product p = {x, weight, bias, y, rows, outputs, inputs};
    long blocks = (outputs + OUTPUTS - 1) / OUTPUTS;
    if (threads == 1) { /* a team of one costs what a small matrix does */
        for (long b = 0; b < blocks; b++) block_of(&p, b);
        return;
    }
    _Pragma("omp parallel for schedule(dynamic, 4) num_threads(threads)")
    for (long b = 0; b < blocks; b++) block_of(&p, b);
}
#else
int dot_supported(void) { return 0; }
int dot_allow(int use) { return 0; }
void dot_linear(const uint16_t *x, const uint16_t *weight, const uint16_t *bias, uint16_t *y, long rows, long outputs,
                long inputs, int threads) {}
#endif
