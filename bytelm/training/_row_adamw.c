/* AdamW of some rows of a table, each read and written once: one pass where torch makes many over copies of them.
 *
 * The operations on a number, and their order, are those of row_adamw.py.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>

typedef struct {
    float *table, *mean, *square, *steps; /* [rows of the table, width]; steps: [rows of the table] */
    const int64_t *rows;                  /* [n], each once */
    const float *grad;                    /* [n, width] */
    long n, width;
    double lr, beta1, beta2, eps, weight_decay;
    int threads;
} Update;

static void update_row(const Update *u, long i) {
    const float *restrict grad = u->grad + i * u->width;
    float *restrict row = u->table + u->rows[i] * u->width;
    float *restrict mean = u->mean + u->rows[i] * u->width;
    float *restrict square = u->square + u->rows[i] * u->width;
    double step = u->steps[u->rows[i]] += 1;
    float rate = (float)(u->lr / (1 - pow(u->beta1, step))), root = (float)sqrt(1 - pow(u->beta2, step));
    float fresh = (float)(1 - u->beta1), kept = (float)u->beta2, added = (float)(1 - u->beta2), eps = (float)u->eps;
    float shrunk = (float)(1 - u->lr * u->weight_decay);
    for (long d = 0; d < u->width; d++) {
        mean[d] += fresh * (grad[d] - mean[d]);
        square[d] = square[d] * kept + added * grad[d] * grad[d];
        row[d] = row[d] * shrunk - mean[d] * rate / (sqrtf(square[d]) / root + eps);
    }
}

PyDoc_STRVAR(update_doc,
             "update(table, mean, square, steps, rows, grad, n, width, lr, beta1, beta2, eps, weight_decay, threads)\n\n"
             "One step of n rows, over addresses: rows of the table as int64, each once; all else float32.");

static PyObject *update(PyObject *self, PyObject *args) {
    unsigned long long table, mean, square, steps, rows, grad;
    Update u;
    if (!PyArg_ParseTuple(args, "KKKKKKlldddddi", &table, &mean, &square, &steps, &rows, &grad, &u.n, &u.width, &u.lr,
                          &u.beta1, &u.beta2, &u.eps, &u.weight_decay, &u.threads))
        return NULL;
    u.table = (float *)(uintptr_t)table;
    u.mean = (float *)(uintptr_t)mean;
    u.square = (float *)(uintptr_t)square;
    u.steps = (float *)(uintptr_t)steps;
    u.rows = (const int64_t *)(uintptr_t)rows;
    u.grad = (const float *)(uintptr_t)grad;
    Py_BEGIN_ALLOW_THREADS
    _Pragma("omp parallel for schedule(static) num_threads(u.threads)")
    for (long i = 0; i < u.n; i++) update_row(&u, i);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"update", update, METH_VARARGS, update_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_row_adamw", "AdamW of some rows of a table.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__row_adamw(void) { return PyModule_Create(&definition); }
