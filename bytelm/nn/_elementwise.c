/* What training does to each number between matrix products, in one pass where torch makes many: RMS norm and rotation,
 * forward and backward.
 *
 * All is computed in float32. Rows are taken in blocks of a fixed size, whose sums are added in order, so that results
 * do not depend on the number of threads.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdlib.h>

#include "_numbers.h"

#define BLOCK 64 /* rows */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

typedef struct {
    const void *x;      /* [rows, width], float32 or bfloat16 */
    void *to_x;         /* its gradient, the same */
    const float *weight; /* [width] */
    const float *grad;  /* [rows, width], of the output */
    float *y;           /* [rows, width] */
    float *inverse;     /* [rows]: 1 / rms */
    float *to_weight;   /* [blocks, width]: a sum for each block */
    long rows, width;
    float eps;
    int threads;
} Norm;

#define DEFINE_NORM(NAME, TYPE, FROM, TO)                                                                              \
    FOR_EACH_PROCESSOR static void norm_##NAME(const Norm *n, long begin, long end) {                                  \
        for (long row = begin; row < end; row++) {                                                                     \
            const TYPE *restrict x = (const TYPE *)n->x + row * n->width;                                              \
            const float *restrict weight = n->weight;                                                                  \
            float *restrict y = n->y + row * n->width;                                                                 \
            float sum = 0;                                                                                             \
            _Pragma("omp simd reduction(+ : sum)") for (long d = 0; d < n->width; d++) sum += FROM(x[d]) * FROM(x[d]); \
            float inverse = 1 / sqrtf(sum / (float)n->width + n->eps);                                                 \
            n->inverse[row] = inverse;                                                                                 \
            for (long d = 0; d < n->width; d++) y[d] = FROM(TO(FROM(x[d]) * inverse)) * weight[d];                     \
        }                                                                                                              \
    }                                                                                                                  \
    FOR_EACH_PROCESSOR static void norm_back_##NAME(const Norm *n, long begin, long end) {                             \
        float *restrict to_weight = n->to_weight + begin / BLOCK * n->width;                                           \
        for (long row = begin; row < end; row++) {                                                                     \
            const TYPE *restrict x = (const TYPE *)n->x + row * n->width;                                              \
            const float *restrict grad = n->grad + row * n->width, *restrict weight = n->weight;                       \
            TYPE *restrict to_x = (TYPE *)n->to_x + row * n->width;                                                    \
            float inverse = n->inverse[row], sum = 0;                                                                  \
            _Pragma("omp simd reduction(+ : sum)") for (long d = 0; d < n->width; d++) {                               \
                float unit = FROM(x[d]) * inverse;                                                                     \
                sum += grad[d] * weight[d] * unit;                                                                     \
                to_weight[d] += grad[d] * FROM(TO(unit));                                                              \
            }                                                                                                          \
            float mean = sum / (float)n->width;                                                                        \
            for (long d = 0; d < n->width; d++)                                                                        \
                to_x[d] = TO((grad[d] * weight[d] - FROM(x[d]) * inverse * mean) * inverse);                           \
        }                                                                                                              \
    }

DEFINE_NORM(float, float, from_float, to_float)
DEFINE_NORM(bf16, uint16_t, from_bf16, to_bf16)

static void run_norm(const Norm *n, void (*part)(const Norm *, long, long)) {
    _Pragma("omp parallel for schedule(static) num_threads(n->threads)")
    for (long begin = 0; begin < n->rows; begin += BLOCK)
        part(n, begin, begin + BLOCK < n->rows ? begin + BLOCK : n->rows);
}

PyDoc_STRVAR(norm_doc,
             "norm(x, weight, y, inverse, rows, width, eps, bf16, threads)\n\n"
             "y = x / sqrt(mean(x^2) + eps) rounded to the type of x, times weight, and the inverse of that root, over\n"
             "addresses of float32; x is bfloat16 where bf16 is 1.");

static PyObject *norm(PyObject *self, PyObject *args) {
    unsigned long long x, weight, y, inverse;
    Norm n = {0};
    int bf16;
    if (!PyArg_ParseTuple(args, "KKKKllfii", &x, &weight, &y, &inverse, &n.rows, &n.width, &n.eps, &bf16, &n.threads))
        return NULL;
    n.x = (const void *)(uintptr_t)x;
    n.weight = (const float *)(uintptr_t)weight;
    n.y = (float *)(uintptr_t)y;
    n.inverse = (float *)(uintptr_t)inverse;
    Py_BEGIN_ALLOW_THREADS
    run_norm(&n, bf16 ? norm_bf16 : norm_float);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyDoc_STRVAR(norm_back_doc,
             "norm_back(x, weight, grad, inverse, to_x, to_weight, rows, width, bf16, threads)\n\n"
             "The gradients of x and weight from that of y; x and its gradient are bfloat16 where bf16 is 1.");

static PyObject *norm_back(PyObject *self, PyObject *args) {
    unsigned long long x, weight, grad, inverse, to_x, to_weight;
    Norm n = {0};
    int bf16;
    if (!PyArg_ParseTuple(args, "KKKKKKllii", &x, &weight, &grad, &inverse, &to_x, &to_weight, &n.rows, &n.width, &bf16,
                          &n.threads))
        return NULL;
    long blocks = (n.rows + BLOCK - 1) / BLOCK;
    float *sums = calloc((size_t)(blocks > 0 ? blocks : 1) * (size_t)n.width, sizeof(float));
    if (sums == NULL) return PyErr_NoMemory();
    n.x = (const void *)(uintptr_t)x;
    n.weight = (const float *)(uintptr_t)weight;
    n.grad = (const float *)(uintptr_t)grad;
    n.inverse = (float *)(uintptr_t)inverse;
    n.to_x = (void *)(uintptr_t)to_x;
    n.to_weight = sums;
    Py_BEGIN_ALLOW_THREADS
    run_norm(&n, bf16 ? norm_back_bf16 : norm_back_float);
    float *restrict whole = (float *)(uintptr_t)to_weight;
    memcpy(whole, sums, sizeof(float) * (size_t)n.width);
    for (long block = 1; block < blocks; block++)
        for (long d = 0; d < n.width; d++) whole[d] += sums[block * n.width + d];
    free(sums);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

typedef struct {
    const void *x; /* [batch, heads, positions, width] by the strides below, in elements; width lies together */
    void *y;       /* the same */
    const float *cos, *first, *second; /* [batch, positions, turned] by strides; sines of the halves of the output */
    long batch, heads, positions, width, turned, x_batch, x_head, x_position, y_batch, y_head, y_position, angle_batch,
        angle_position;
    int threads;
} Turn;

#define DEFINE_TURN(NAME, TYPE, FROM, TO)                                                                              \
    FOR_EACH_PROCESSOR static void turn_##NAME(const Turn *t, long b, long position) {                                 \
        long angle = b * t->angle_batch + position * t->angle_position, half = t->turned / 2;                          \
        const float *restrict cos = t->cos + angle, *restrict first = t->first + angle;                                \
        const float *restrict second = t->second + angle;                                                              \
        for (long h = 0; h < t->heads; h++) {                                                                          \
            const TYPE *restrict x =                                                                                   \
                (const TYPE *)t->x + b * t->x_batch + h * t->x_head + position * t->x_position;                        \
            TYPE *restrict y = (TYPE *)t->y + b * t->y_batch + h * t->y_head + position * t->y_position;               \
            for (long i = 0; i < half; i++) {                                                                          \
                float low = FROM(x[i]), high = FROM(x[i + half]);                                                      \
                y[i] = TO(low * cos[i] + high * first[i]);                                                             \
                y[i + half] = TO(high * cos[i + half] + low * second[i]);                                              \
            }                                                                                                          \
            memcpy(y + t->turned, x + t->turned, sizeof(TYPE) * (size_t)(t->width - t->turned));                       \
        }                                                                                                              \
    }

DEFINE_TURN(float, float, from_float, to_float)
DEFINE_TURN(bf16, uint16_t, from_bf16, to_bf16)

PyDoc_STRVAR(rotate_doc,
             "rotate(x, y, cos, sin, batch, heads, positions, width, turned, x_batch, x_head, x_position, y_batch,\n"
             "       y_head, y_position, angle_batch, angle_position, back, bf16, threads)\n\n"
             "y_i = x_i cos_i + x_j sin_i of the first dimensions of a head, j half of them further, round again; the\n"
             "others are copied. Where back is 1: x_i cos_i + x_j sin_j, the gradient. Strides are in elements.");

static PyObject *rotate(PyObject *self, PyObject *args) {
    unsigned long long x, y, cos, sin;
    Turn t;
    int back, bf16;
    if (!PyArg_ParseTuple(args, "KKKKllllllllllllliii", &x, &y, &cos, &sin, &t.batch, &t.heads, &t.positions, &t.width,
                          &t.turned, &t.x_batch, &t.x_head, &t.x_position, &t.y_batch, &t.y_head, &t.y_position,
                          &t.angle_batch, &t.angle_position, &back, &bf16, &t.threads))
        return NULL;
    t.x = (const void *)(uintptr_t)x;
    t.y = (void *)(uintptr_t)y;
    t.cos = (const float *)(uintptr_t)cos;
    t.first = (const float *)(uintptr_t)sin + (back ? t.turned / 2 : 0);
    t.second = (const float *)(uintptr_t)sin + (back ? 0 : t.turned / 2);
    void (*part)(const Turn *, long, long) = bf16 ? turn_bf16 : turn_float;
    Py_BEGIN_ALLOW_THREADS
    _Pragma("omp parallel for schedule(static) num_threads(t.threads)")
    for (long i = 0; i < t.batch * t.positions; i++) part(&t, i / t.positions, i % t.positions);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"norm", norm, METH_VARARGS, norm_doc},
    {"norm_back", norm_back, METH_VARARGS, norm_back_doc},
    {"rotate", rotate, METH_VARARGS, rotate_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_elementwise", "RMS norm and rotation while training.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__elementwise(void) { return PyModule_Create(&definition); }
