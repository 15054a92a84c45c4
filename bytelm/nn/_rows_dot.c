/* Matrices of bfloat16 times rows of bfloat16 on processors that multiply pairs of them: AVX512-BF16.
 *
 * A matrix is read once for up to MAX_ROWS rows. Sums are float32, of LANES parts that each add one pair of inputs of
 * every STEP, in an order that does not depend on the number of rows: a row has the same result alone and among others.
 * As the instruction has it, subnormal numbers are zero.
 */
#include <stdint.h>
#include <string.h>

#include "_rows_dot.h"

#if defined(__x86_64__) && defined(__GNUC__) && (__GNUC__ >= 10 || defined(__clang__))
#include <immintrin.h>

#define MAX_ROWS 8  /* in registers, with 3 outputs */
#define OUTPUTS 24  /* a block that one thread takes; a multiple of the outputs at a time */
#define STEP 32     /* inputs at a time; half of them at the end of some rows */
#define LANES 16
#define CHUNK 8192  /* inputs of all rows of a group that are read before those of the next outputs */
#define DOT __attribute__((target("avx512f,avx512bw,avx512bf16")))
#define INLINE static inline __attribute__((always_inline)) DOT

typedef struct {
    const uint16_t *x, *weight, *bias; /* [rows, inputs], [outputs, inputs], [outputs] or NULL */
    uint16_t *y;                       /* [rows, outputs] */
    long rows, outputs, inputs;
} Product;

INLINE uint16_t rounded(float value) { /* to the nearest, ties to even */
    uint32_t wide;
    memcpy(&wide, &value, 4);
    return value != value ? 0x7FC0 : (uint16_t)((wide + 0x7FFFu + ((wide >> 16) & 1u)) >> 16);
}

INLINE void finish(const Product *p, long row, long output, __m512 parts) {
    float bias = 0, sum = _mm512_reduce_add_ps(parts);
    if (p->bias != NULL) {
        uint32_t wide = (uint32_t)p->bias[output] << 16;
        memcpy(&bias, &wide, 4);
        sum += bias;
    }
    p->y[row * p->outputs + output] = rounded(sum);
}

/* The inputs from i on: all of a step, or its first half. */
INLINE __m512bh load(const uint16_t *from, __mmask32 mask) { return (__m512bh)_mm512_maskz_loadu_epi16(mask, from); }

#define DEFINE_GROUP(ROWS, OUTS)                                                                                       \
    static DOT void group_##ROWS(const Product *p, long row, long begin, long end) {                                   \
        const uint16_t *x = p->x + row * p->inputs;                                                                    \
        __m512 sums[OUTPUTS][ROWS];                                                                                    \
        for (int k = 0; k < OUTPUTS; k++)                                                                              \
            for (int r = 0; r < ROWS; r++) sums[k][r] = _mm512_setzero_ps();                                           \
        for (long from = 0, to; from < p->inputs; from = to) {                                                         \
            to = from + CHUNK / ROWS / STEP * STEP;                                                                    \
            if (to > p->inputs) to = p->inputs;                                                                        \
            for (long o = begin; o < end; o += OUTS) {                                                                 \
                long at = o + OUTS <= p->outputs ? o : p->outputs - OUTS; /* the last ones may be done twice */        \
                const uint16_t *w = p->weight + at * p->inputs;                                                        \
                ask_early(p->weight, p->inputs * 2, at + OUTS, OUTS, p->outputs, from * 2);                            \
                __m512 acc[OUTS][ROWS];                                                                                \
                for (int k = 0; k < OUTS; k++)                                                                         \
                    for (int r = 0; r < ROWS; r++) acc[k][r] = sums[o - begin + k][r];                                 \
                for (long i = from; i < to; i += STEP) {                                                               \
                    __mmask32 mask = i + STEP <= to ? 0xFFFFFFFFu : 0xFFFFu;                                           \
                    __m512bh of[ROWS];                                                                                 \
                    for (int r = 0; r < ROWS; r++) of[r] = load(x + r * p->inputs + i, mask);                          \
                    for (int k = 0; k < OUTS; k++) {                                                                   \
                        __m512bh weights = load(w + k * p->inputs + i, mask);                                          \
                        for (int r = 0; r < ROWS; r++) acc[k][r] = _mm512_dpbf16_ps(acc[k][r], weights, of[r]);        \
                    }                                                                                                  \
                }                                                                                                      \
                for (int k = 0; k < OUTS; k++)                                                                         \
                    for (int r = 0; r < ROWS; r++) sums[o - begin + k][r] = acc[k][r];                                 \
            }                                                                                                          \
        }                                                                                                              \
        for (long o = begin; o < end; o += OUTS) {                                                                     \
            long at = o + OUTS <= p->outputs ? o : p->outputs - OUTS;                                                  \
            for (int k = 0; k < OUTS; k++)                                                                             \
                for (int r = 0; r < ROWS; r++) finish(p, row + r, at + k, sums[o - begin + k][r]);                     \
        }                                                                                                              \
    }

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

int dot_supported(void) { return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw"); }

void dot_linear(const uint16_t *x, const uint16_t *weight, const uint16_t *bias, uint16_t *y, long rows, long outputs,
                long inputs, int threads) {
    Product p = {x, weight, bias, y, rows, outputs, inputs};
    long blocks = (outputs + OUTPUTS - 1) / OUTPUTS;
    _Pragma("omp parallel for schedule(dynamic, 4) num_threads(threads)")
    for (long b = 0; b < blocks; b++) block(&p, b * OUTPUTS, (b + 1) * OUTPUTS < outputs ? (b + 1) * OUTPUTS : outputs);
}
#else
int dot_supported(void) { return 0; }
void dot_linear(const uint16_t *x, const uint16_t *weight, const uint16_t *bias, uint16_t *y, long rows, long outputs,
                long inputs, int threads) {}
#endif
