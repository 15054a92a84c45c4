/* Matrices of bfloat16 or int8 times a few rows of bfloat16, read once at the speed of memory, and attention of a few
 * queries to a cache of bfloat16; AVX2 with FMA. (Matrices of bfloat16 are for _rows_dot.c where that has its unit.)
 *
 * Sums are float32, in an order that does not depend on the number of rows: a row has the same result alone and among
 * others. Each sum has LANES parts; the part of lane l adds inputs 2 l and 2 l + 1 of each 16. The rows are converted
 * once, in the order in which they are read: to float32 for bfloat16; for int8 to int16, GROUP inputs with one scale,
 * whose products are exact sums of integers. (Widening int8 to float32 takes more than twice the instructions.)
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_rows_dot.h"

#define LANES 8
#define STEP 16 /* inputs at a time; their number is a multiple of it */
#define GROUP 128 /* inputs with one scale; 8 sums of two products of int8 and int16 fit into 32 bits 32 times over */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define MAX_ROWS 4      /* in registers; more rows are read in groups of so many, from the cache */
#define OUTPUTS 24      /* a block that one thread takes; a multiple of the outputs at a time */
#define LEAST 6         /* outputs */
#define LINE 64         /* bytes of a cache */
#define AHEAD 2         /* lines of each next output that are asked for early */
#define CHUNK 4096      /* inputs of all rows of a group that are read before those of the next output */
#define AVX2 __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) AVX2

typedef struct {
    const void *x;       /* [rows, inputs], in the order of the loads below: float32, or int16 where there are unit */
    const float *unit;   /* [rows, groups of inputs], in the order of x: of its int16 */
    const void *weight;  /* [outputs, inputs] */
    const float *scale;   /* [outputs], where the weight is int8 */
    const uint16_t *bias; /* [outputs], bfloat16, or NULL */
    uint16_t *y;        /* [rows, outputs], bfloat16; or NULL */
    float *scores;      /* the same in float32, where y is NULL */
    long rows, outputs, inputs;
    int threads;
} Product;

INLINE float from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

INLINE uint16_t to_bf16(float value) { /* to the nearest, ties to even */
    uint32_t wide;
    memcpy(&wide, &value, 4);
    if (value != value) return 0x7FC0;
    return (uint16_t)((wide + 0x7FFFu + ((wide >> 16) & 1u)) >> 16);
}

INLINE void load_bf16(const uint16_t *w, __m256 *low, __m256 *high) {
    __m256i pairs = _mm256_loadu_si256((const __m256i *)w);
    *low = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    *high = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xFFFF0000)));
}

INLINE float lane_sum(const float *parts) {
    return ((parts[0] + parts[4]) + (parts[2] + parts[6])) + ((parts[1] + parts[5]) + (parts[3] + parts[7]));
}

/* Adds a chunk of n inputs of ROWS rows and OUTS outputs to their sums. */
#define DEFINE_ADD_BF16(ROWS, OUTS)                                                                                    \
    INLINE void add_bf16_##ROWS(const Product *p, long row, long i, const uint16_t *w, float *sums, long n) {          \
        const float *x = (const float *)p->x + row * p->inputs + i * ROWS;                                             \
        __m256 acc[OUTS][ROWS], low, high;                                                                             \
        for (int o = 0; o < OUTS; o++)                                                                                 \
            for (int r = 0; r < ROWS; r++) acc[o][r] = _mm256_loadu_ps(sums + (o * MAX_ROWS + r) * LANES);             \
        for (long end = i + n; i < end; i += STEP, x += ROWS * STEP)                                                   \
            for (int o = 0; o < OUTS; o++) {                                                                           \
                load_bf16(w + o * p->inputs + i, &low, &high);                                                         \
                for (int r = 0; r < ROWS; r++) {                                                                       \
                    acc[o][r] = _mm256_fmadd_ps(_mm256_loadu_ps(x + r * STEP), low, acc[o][r]);                        \
                    acc[o][r] = _mm256_fmadd_ps(_mm256_loadu_ps(x + r * STEP + LANES), high, acc[o][r]);               \
                }                                                                                                      \
            }                                                                                                          \
        for (int o = 0; o < OUTS; o++)                                                                                 \
            for (int r = 0; r < ROWS; r++) _mm256_storeu_ps(sums + (o * MAX_ROWS + r) * LANES, acc[o][r]);             \
    }

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
                for (long next = at + OUTS; next < at + 2 * OUTS && next < p->outputs; next++)                         \
                    for (long k = 0; k < AHEAD; k++) /* a stream of its own, which begins slowly */                    \
                        _mm_prefetch((const char *)(weight + next * p->inputs + i) + k * LINE, _MM_HINT_T0);           \
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
    else p->scores[row * p->outputs + output] = sum;
}

#define DEFINE_PRODUCT(TYPE, NAME, ADD)                                                                                \
    DEFINE_GROUP(TYPE, NAME, ADD, 1, 6)                                                                                \
    DEFINE_GROUP(TYPE, NAME, ADD, 2, 4)                                                                                \
    DEFINE_GROUP(TYPE, NAME, ADD, 3, 4)                                                                                \
    DEFINE_GROUP(TYPE, NAME, ADD, 4, 3)                                                                                \
    /* Some outputs of all rows. */                                                                                    \
    static void block_##NAME(const Product *p, long block) {                                                           \
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
        for (long block = 0; block < blocks; block++) block_##NAME(p, block);                                          \
    }

DEFINE_PRODUCT(uint16_t, bf16, DEFINE_ADD_BF16)
DEFINE_PRODUCT(int8_t, int8, DEFINE_ADD_INT8)

/* The rows as float32: first the inputs that meet the low halves of a load, then those that meet the high ones. */
static AVX2 void to_floats(const uint16_t *x, float *to, long rows, long inputs) {
    for (long begin = 0; begin < rows; begin += MAX_ROWS) {
        long group = rows - begin < MAX_ROWS ? rows - begin : MAX_ROWS;
        for (long i = 0; i < inputs; i += STEP)
            for (long r = 0; r < group; r++) {
                __m256 low, high;
                float *into = to + begin * inputs + i * group + r * STEP;
                load_bf16(x + (begin + r) * inputs + i, &low, &high);
                _mm256_storeu_ps(into, low);
                _mm256_storeu_ps(into + LANES, high);
            }
    }
}

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

static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static int multiply(Product *p, const uint16_t *x) {
    if (p->scale == NULL && dot_supported()) {
        dot_linear(x, p->weight, p->bias, p->y, p->rows, p->outputs, p->inputs, p->threads);
        return 1;
    }
    size_t size = (size_t)(p->rows * p->inputs), groups = (size_t)(p->rows * ((p->inputs + GROUP - 1) / GROUP));
    void *rows = malloc(p->scale == NULL ? size * sizeof(float) : size * sizeof(int16_t) + groups * sizeof(float));
    if (rows == NULL) return 0;
    p->x = rows;
    if (p->scale == NULL) {
        to_floats(x, rows, p->rows, p->inputs);
        product_bf16(p);
    } else {
        float *unit = (float *)((int16_t *)rows + size); /* size is a multiple of STEP */
        to_integers(x, rows, unit, p->rows, p->inputs);
        p->unit = unit;
        product_int8(p);
    }
    free(rows);
    return 1;
}

typedef struct {
    const uint16_t *q, *k, *v; /* [batch, heads, queries, width]; [batch, kv_heads, slots, width] with the strides below */
    const uint8_t *mask;       /* [batch, queries, slots]: what is seen */
    uint16_t *y;               /* as q */
    long batch, heads, kv_heads, queries, slots, width, k_batch, k_head, v_batch, v_head;
    float scale;
    int threads;
} Attention;

/* Scores to weights, up to a factor: its inverse is returned. A query that sees nothing gives zeros. */
static float soften(float *scores, const uint8_t *mask, long slots, float scale) {
    float most = -INFINITY, sum = 0;
    for (long s = 0; s < slots; s++)
        if (mask[s] && scores[s] > most) most = scores[s];
    for (long s = 0; s < slots; s++) {
        scores[s] = mask[s] ? expf((scores[s] - most) * scale) : 0;
        sum += scores[s];
    }
    return sum > 0 ? 1 / sum : 0;
}

/* Adds n slots to the sums of one query, in their order. */
INLINE void add_values(const float *weights, const uint16_t *v, float *sums, long width, long n) {
    for (long e = 0; e < width; e += STEP) {
        __m256 even = _mm256_loadu_ps(sums + e), odd = _mm256_loadu_ps(sums + e + LANES);
        for (long s = 0; s < n; s++) {
            __m256 low, high, weight = _mm256_broadcast_ss(weights + s);
            load_bf16(v + s * width + e, &low, &high);
            even = _mm256_fmadd_ps(weight, low, even);
            odd = _mm256_fmadd_ps(weight, high, odd);
        }
        _mm256_storeu_ps(sums + e, even);
        _mm256_storeu_ps(sums + e + LANES, odd);
    }
}

/* All queries of the heads that share one head of keys and values. */
static AVX2 int attend_group(const Attention *a, long b, long g) {
    long rows = a->heads / a->kv_heads * a->queries, first = (b * a->heads + g * (a->heads / a->kv_heads)) * a->queries;
    long width = a->width, slots = a->slots, room = slots < LEAST ? LEAST : slots;
    const uint16_t *k = a->k + b * a->k_batch + g * a->k_head, *v = a->v + b * a->v_batch + g * a->v_head;
    float *memory = calloc((size_t)(rows * (2 * width + room + 1) + LEAST * width / 2), sizeof(float));
    if (memory == NULL) return 0;
    float *x = memory, *sums = x + rows * width, *scores = sums + rows * width, *inverse = scores + rows * room;
    if (slots < LEAST) k = memcpy(inverse + rows, k, sizeof(uint16_t) * (size_t)(slots * width)); /* zeros follow */
    to_floats(a->q + first * width, x, rows, width);
    Product product = {
        .x = x, .weight = k, .scores = scores, .rows = rows, .outputs = room, .inputs = width, .threads = 1};
    for (long block = 0; block * OUTPUTS < room; block++) block_bf16(&product, block);
    for (long r = 0; r < rows; r++)
        inverse[r] = soften(scores + r * room, a->mask + (b * a->queries + r % a->queries) * slots, slots, a->scale);
    for (long s = 0; s < slots; s += LANES) {
        long n = slots - s < LANES ? slots - s : LANES;
        for (long r = 0; r < rows; r++)
            add_values(scores + r * room + s, v + s * width, sums + r * width, width, n);
    }
    for (long r = 0; r < rows; r++)
        for (long i = 0; i < width; i++) {
            long place = i / STEP * STEP + i % STEP / 2 + i % 2 * LANES;
            a->y[(first + r) * width + i] = to_bf16(sums[r * width + place] * inverse[r]);
        }
    free(memory);
    return 1;
}

PyDoc_STRVAR(attention_doc,
             "attention(q, k, v, mask, y, batch, heads, kv_heads, queries, slots, width, k_batch, k_head, v_batch,\n"
             "          v_head, scale, threads)\n\n"
             "y = softmax(scale q k^T where mask) v, over addresses of bfloat16 and of a mask of bytes; strides of\n"
             "batch and head in elements; width in multiples of 16.");

static PyObject *attention(PyObject *self, PyObject *args) {
    unsigned long long q, k, v, mask, y;
    int done = 1;
    Attention a;
    if (!PyArg_ParseTuple(args, "KKKKKllllllllllfi", &q, &k, &v, &mask, &y, &a.batch, &a.heads, &a.kv_heads, &a.queries,
                          &a.slots, &a.width, &a.k_batch, &a.k_head, &a.v_batch, &a.v_head, &a.scale, &a.threads))
        return NULL;
    a.q = (const uint16_t *)(uintptr_t)q;
    a.k = (const uint16_t *)(uintptr_t)k;
    a.v = (const uint16_t *)(uintptr_t)v;
    a.mask = (const uint8_t *)(uintptr_t)mask;
    a.y = (uint16_t *)(uintptr_t)y;
    Py_BEGIN_ALLOW_THREADS
    _Pragma("omp parallel for schedule(dynamic) num_threads(a.threads) reduction(&& : done)")
    for (long i = 0; i < a.batch * a.kv_heads; i++) done = attend_group(&a, i / a.kv_heads, i % a.kv_heads) && done;
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(linear_doc,
             "linear(x, weight, scale, bias, y, rows, outputs, inputs, threads)\n\n"
             "y = x weight^T * scale + bias, over addresses: where there is a scale, it is float32 and the weight int8;\n"
             "all else is bfloat16; 0 stands for no scale and no bias. At least 6 outputs; inputs in multiples of 16.");

static PyObject *linear(PyObject *self, PyObject *args) {
    unsigned long long x, weight, scale, bias, y;
    Product p = {0};
    int done;
    if (!PyArg_ParseTuple(args, "KKKKKllli", &x, &weight, &scale, &bias, &y, &p.rows, &p.outputs, &p.inputs,
                          &p.threads))
        return NULL;
    p.weight = (const void *)(uintptr_t)weight;
    p.scale = (const float *)(uintptr_t)scale;
    p.bias = (const uint16_t *)(uintptr_t)bias;
    p.y = (uint16_t *)(uintptr_t)y;
    Py_BEGIN_ALLOW_THREADS
    done = multiply(&p, (const uint16_t *)(uintptr_t)x);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"linear", linear, METH_VARARGS, linear_doc},
    {"attention", attention, METH_VARARGS, attention_doc},
    {NULL, NULL, 0, NULL},
};
#else
static int supported(void) { return 0; }
static PyMethodDef methods[] = {{NULL, NULL, 0, NULL}};
#endif

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_rows", "Products of matrices with a few rows, and attention.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__rows(void) {
    if (!supported()) {
        PyErr_SetString(PyExc_ImportError, "the processor has no AVX2 with FMA");
        return NULL;
    }
    return PyModule_Create(&definition);
}
