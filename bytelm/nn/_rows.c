/* Matrices times a few rows, read once at the speed of memory: bfloat16 or int8 times bfloat16, float32 times float32.
 * (Matrices of bfloat16 are for _rows_dot.c where that has its unit.)
 *
 * Sums are float32, in an order that does not depend on the number of rows: a row has the same result alone and among
 * others. Each sum has LANES parts; of bfloat16 the part of lane l adds inputs 2 l and 2 l + 1 of each 16. The rows are
 * converted once, in the order in which they are read: to float32; for int8 to int16, GROUP inputs with one scale,
 * whose products are exact sums of integers. (Widening int8 to float32 takes more than twice the instructions.)
 */
#include <math.h>
#include <stdlib.h>

#include "_rows.h"
#include "_rows_dot.h"

#ifdef ROWS_SUPPORTED
#define GROUP 128  /* inputs with one scale; 8 sums of two products of int8 and int16 fit into 32 bits 32 times over */
#define MAX_ROWS 4 /* in registers; more rows are read in groups of so many, from the cache */
#define CHUNK 4096 /* inputs of all rows of a group that are read before those of the next output */

INLINE float lane_sum(const float *parts) {
    return ((parts[0] + parts[4]) + (parts[2] + parts[6])) + ((parts[1] + parts[5]) + (parts[3] + parts[7]));
}

/* Adds a chunk of n inputs of ROWS rows and OUTS outputs to their sums. */
#define DEFINE_ADD_FLOATS(TYPE, NAME, ROWS, OUTS)                                                                                    \
    INLINE void add_##NAME##_##ROWS(const Product *p, long row, long i, const TYPE *w, float *sums, long n) {          \
        const float *x = (const float *)p->x + row * p->inputs + i * ROWS;                                             \
        __m256 acc[OUTS][ROWS], low, high;                                                                             \
        for (int o = 0; o < OUTS; o++)                                                                                 \
            for (int r = 0; r < ROWS; r++) acc[o][r] = _mm256_loadu_ps(sums + (o * MAX_ROWS + r) * LANES);             \
        for (long end = i + n; i < end; i += STEP, x += ROWS * STEP)                                                   \
            for (int o = 0; o < OUTS; o++) {                                                                           \
                load_##NAME(w + o * p->inputs + i, &low, &high);                                                         \
                for (int r = 0; r < ROWS; r++) {                                                                       \
                    acc[o][r] = _mm256_fmadd_ps(_mm256_loadu_ps(x + r * STEP), low, acc[o][r]);                        \
                    acc[o][r] = _mm256_fmadd_ps(_mm256_loadu_ps(x + r * STEP + LANES), high, acc[o][r]);               \
                }                                                                                                      \
            }                                                                                                          \
        for (int o = 0; o < OUTS; o++)                                                                                 \
            for (int r = 0; r < ROWS; r++) _mm256_storeu_ps(sums + (o * MAX_ROWS + r) * LANES, acc[o][r]);             \
    }
#define DEFINE_ADD_BF16(ROWS, OUTS) DEFINE_ADD_FLOATS(uint16_t, bf16, ROWS, OUTS)
#define DEFINE_ADD_FLOAT(ROWS, OUTS) DEFINE_ADD_FLOATS(float, float, ROWS, OUTS)

#define DEFINE_ADD_INT8(ROWS, OUTS)                                                                                    \
    INLINE void add_int8_##ROWS(const Product *p, long row, long i, const int8_t *w, float *sums, long n) {            \
        const int16_t *x = (const int16_t *)p->x + row * p->inputs + i * ROWS;                                         \
        const float *unit = p->unit + row * ((p->inputs + GROUP - 1) / GROUP) + i / GROUP * ROWS;                      \
        for (long end = i + n, last; i < end; i = last, unit += ROWS) {                                                \
            __m256i acc[OUTS][ROWS];                                                                                   \
            last = i + GROUP < end ? i + GROUP : end;                                                                  \
            for (int o = 0; o < OUTS; o++)                                                                             \
                for (int r = 0; r < ROWS; r++) acc[o][r] = _mm256_setzero_si256();                                     \
            for (; i < last; i += STEP, x += ROWS * STEP)                                                              \
                for (int o = 0; o < OUTS; o++) {                                                                       \
                    __m256i codes =                                                                                    \
                        _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + o * p->inputs + i)));               \
                    for (int r = 0; r < ROWS; r++) {                                                                   \
                        __m256i of = _mm256_loadu_si256((const __m256i *)(x + r * STEP));                              \
                        acc[o][r] = _mm256_add_epi32(acc[o][r], _mm256_madd_epi16(codes, of));                         \
                    }                                                                                                  \
                }                                                                                                      \
            for (int o = 0; o < OUTS; o++)                                                                             \
                for (int r = 0; r < ROWS; r++) {                                                                       \
                    float *sum = sums + (o * MAX_ROWS + r) * LANES;                                                    \
                    __m256 part = _mm256_cvtepi32_ps(acc[o][r]), of = _mm256_broadcast_ss(unit + r);                   \
                    _mm256_storeu_ps(sum, _mm256_fmadd_ps(part, of, _mm256_loadu_ps(sum)));                            \
                }                                                                                                      \
        }                                                                                                              \
    }

/* All chunks of a group of up to MAX_ROWS rows and of the outputs from begin to end. */
#define DEFINE_GROUP(TYPE, NAME, ADD, ROWS, OUTS)                                                                      \
    ADD(ROWS, OUTS)                                                                                                    \
    static AVX2 void group_##NAME##_##ROWS(const Product *p, long row, long begin, long end) {                         \
        float sums[OUTPUTS * MAX_ROWS * LANES] = {0};                                                                  \
        const TYPE *weight = p->weight;                                                                                \
        for (long i = 0, n; i < p->inputs; i += n) {                                                                   \
            n = p->inputs - i < CHUNK / ROWS / GROUP * GROUP ? p->inputs - i : CHUNK / ROWS / GROUP * GROUP;           \
            for (long o = begin; o < end; o += OUTS) {                                                                 \
                long at = o + OUTS <= p->outputs ? o : p->outputs - OUTS; /* the last ones may be done twice */        \
                ask_early(weight, p->inputs * (long)sizeof(TYPE), at + OUTS, OUTS, p->outputs, i * (long)sizeof(TYPE));\
                float *of = sums + (o - begin) * MAX_ROWS * LANES;                                                     \
                add_##NAME##_##ROWS(p, row, i, weight + at * p->inputs, of, n);                                        \
            }                                                                                                          \
        }                                                                                                              \
        for (long o = begin; o < end; o++) {                                                                           \
            long first = begin + (o - begin) / OUTS * OUTS, shift = first + OUTS - p->outputs;                         \
            long place = o - begin + (shift > 0 ? shift : 0);                                                          \
            for (int r = 0; r < ROWS; r++) finish(p, row + r, o, lane_sum(sums + (place * MAX_ROWS + r) * LANES));     \
        }                                                                                                              \
    }

INLINE void finish(const Product *p, long row, long output, float sum) {
    if (p->scale != NULL) sum *= p->scale[output];
    if (p->bias != NULL) sum += from_bf16(p->bias[output]);
    if (p->y != NULL) p->y[row * p->outputs + output] = to_bf16(sum);
    else p->floats[row * p->outputs + output] = sum;
}

#define DEFINE_PRODUCT(TYPE, NAME, ADD)                                                                                \
    DEFINE_GROUP(TYPE, NAME, ADD, 1, 6)                                                                                \
    DEFINE_GROUP(TYPE, NAME, ADD, 2, 4)                                                                                \
    DEFINE_GROUP(TYPE, NAME, ADD, 3, 4)                                                                                \
    DEFINE_GROUP(TYPE, NAME, ADD, 4, 3)                                                                                \
    /* Some outputs of all rows. */                                                                                    \
    void rows_block_##NAME(const Product *p, long block) {                                                           \
        long begin = block * OUTPUTS, end = begin + OUTPUTS < p->outputs ? begin + OUTPUTS : p->outputs;               \
        for (long row = 0; row < p->rows; row += MAX_ROWS) {                                                           \
            switch (p->rows - row) {                                                                                   \
                case 1: group_##NAME##_1(p, row, begin, end); break;                                                   \
                case 2: group_##NAME##_2(p, row, begin, end); break;                                                   \
                case 3: group_##NAME##_3(p, row, begin, end); break;                                                   \
                default: group_##NAME##_4(p, row, begin, end);                                                         \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static void product_##NAME(const Product *p) {                                                                     \
        long blocks = (p->outputs + OUTPUTS - 1) / OUTPUTS;                                                            \
        _Pragma("omp parallel for schedule(dynamic, 4) num_threads(p->threads)")                                       \
        for (long block = 0; block < blocks; block++) rows_block_##NAME(p, block);                                          \
    }

DEFINE_PRODUCT(uint16_t, bf16, DEFINE_ADD_BF16)
DEFINE_PRODUCT(float, float, DEFINE_ADD_FLOAT)
DEFINE_PRODUCT(int8_t, int8, DEFINE_ADD_INT8)

/* The rows as float32; of bfloat16 first the inputs that meet the low halves of a load, then those that meet the high. */
#define DEFINE_PACK(TYPE, NAME)                                                                                        \
    AVX2 void rows_pack_##NAME(const TYPE *x, float *to, long rows, long inputs) {                                     \
        for (long begin = 0; begin < rows; begin += MAX_ROWS) {                                                        \
            long group = rows - begin < MAX_ROWS ? rows - begin : MAX_ROWS;                                            \
            for (long i = 0; i < inputs; i += STEP)                                                                    \
                for (long r = 0; r < group; r++) {                                                                     \
                    __m256 low, high;                                                                                  \
                    float *into = to + begin * inputs + i * group + r * STEP;                                          \
                    load_##NAME(x + (begin + r) * inputs + i, &low, &high);                                            \
                    _mm256_storeu_ps(into, low);                                                                       \
                    _mm256_storeu_ps(into + LANES, high);                                                              \
                }                                                                                                      \
        }                                                                                                              \
    }

DEFINE_PACK(uint16_t, bf16)
DEFINE_PACK(float, float)

/* The unit of n inputs: their largest is 32767 of it. NaN where one is not finite, which makes their sums NaN. */
static AVX2 float unit_of(const uint16_t *x, long n) {
    int most = 0;
    for (long i = 0; i < n; i++) most = (x[i] & 0x7FFF) > most ? x[i] & 0x7FFF : most;
    return most < 0x7F80 ? from_bf16((uint16_t)most) / 32767 : NAN;
}

/* The rows as int16, to the nearest, and a unit for each GROUP of inputs. */
static AVX2 void to_integers(const uint16_t *x, int16_t *to, float *unit, long rows, long inputs) {
    long groups = (inputs + GROUP - 1) / GROUP;
    for (long begin = 0; begin < rows; begin += MAX_ROWS) {
        long group = rows - begin < MAX_ROWS ? rows - begin : MAX_ROWS;
        for (long i = 0; i < inputs; i += GROUP)
            for (long r = 0; r < group; r++) {
                const uint16_t *from = x + (begin + r) * inputs + i;
                long n = inputs - i < GROUP ? inputs - i : GROUP;
                float found = unit_of(from, n);
                __m256 per = _mm256_set1_ps(found > 0 ? 1 / found : 0);
                unit[begin * groups + i / GROUP * group + r] = found;
                for (long k = 0; k < n; k += STEP) {
                    __m256 low, high;
                    load_bf16(from + k, &low, &high);
                    __m256i even = _mm256_cvtps_epi32(_mm256_mul_ps(low, per));
                    __m256i odd = _mm256_cvtps_epi32(_mm256_mul_ps(high, per));
                    __m256i pairs = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xAA);
                    _mm256_storeu_si256((__m256i *)(to + begin * inputs + (i + k) * group + r * STEP), pairs);
                }
            }
    }
}

int rows_multiply(Product *p, const void *x, Type weight) {
    if (weight == BFLOAT16 && dot_supported()) {
        dot_linear(x, p->weight, p->bias, p->y, p->rows, p->outputs, p->inputs, p->threads);
        return 1;
    }
    size_t size = (size_t)(p->rows * p->inputs), groups = (size_t)(p->rows * ((p->inputs + GROUP - 1) / GROUP));
    void *rows = malloc(weight == INT8 ? size * sizeof(int16_t) + groups * sizeof(float) : size * sizeof(float));
    if (rows == NULL) return 0;
    p->x = rows;
    switch (weight) {
        case BFLOAT16:
            rows_pack_bf16(x, rows, p->rows, p->inputs);
            product_bf16(p);
            break;
        case FLOAT32:
            rows_pack_float(x, rows, p->rows, p->inputs);
            product_float(p);
            break;
        case INT8: {
            float *unit = (float *)((int16_t *)rows + size); /* size is a multiple of STEP */
            to_integers(x, rows, unit, p->rows, p->inputs);
            p->unit = unit;
            product_int8(p);
        }
    }
    free(rows);
    return 1;
}
#endif
