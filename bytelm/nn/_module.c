/* The native core for few rows, as a module: functions over addresses. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#include "_blocks.h"
#include "_rows_dot.h"

#ifdef ROWS_SUPPORTED
typedef unsigned long long Address;
#define AT(type, address) ((type)(uintptr_t)(address))

static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

PyDoc_STRVAR(linear_doc,
             "linear(x, weight, scale, bias, y, rows, outputs, inputs, threads)\n\n"
             "y = x weight^T * scale + bias, over addresses: where there is a scale, it is float32 and the weight int8;\n"
             "all else is bfloat16; 0 stands for no scale and no bias. At least 6 outputs; inputs in multiples of 16.");

static PyObject *linear(PyObject *self, PyObject *args) {
    Address x, weight, scale, bias, y;
    Product p = {0};
    int done;
    if (!PyArg_ParseTuple(args, "KKKKKllli", &x, &weight, &scale, &bias, &y, &p.rows, &p.outputs, &p.inputs,
                          &p.threads))
        return NULL;
    p.weight = AT(const void *, weight);
    p.scale = AT(const float *, scale);
    p.bias = AT(const uint16_t *, bias);
    p.y = AT(uint16_t *, y);
    Py_BEGIN_ALLOW_THREADS
    done = rows_multiply(&p, AT(const void *, x), p.scale == NULL ? BFLOAT16 : INT8);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(attention_doc,
             "attention(q, k, v, mask, y, batch, heads, kv_heads, queries, slots, width, k_batch, k_head, v_batch,\n"
             "          v_head, scale, threads)\n\n"
             "y = softmax(scale q k^T where mask) v, over addresses of bfloat16 and of a mask of bytes; strides of\n"
             "batch and head in elements; width in multiples of 16.");

static PyObject *attention(PyObject *self, PyObject *args) {
    Address q, k, v, mask, y;
    int done;
    Attention a = {.type = BFLOAT16};
    if (!PyArg_ParseTuple(args, "KKKKKllllllllllfi", &q, &k, &v, &mask, &y, &a.batch, &a.heads, &a.kv_heads, &a.queries,
                          &a.slots, &a.width, &a.k_batch, &a.k_head, &a.v_batch, &a.v_head, &a.scale, &a.threads))
        return NULL;
    a.q = AT(const void *, q);
    a.k = AT(const void *, k);
    a.v = AT(const void *, v);
    a.mask = AT(const uint8_t *, mask);
    a.y = AT(void *, y);
    Py_BEGIN_ALLOW_THREADS
    done = rows_attend(&a);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static int all_below(const int64_t *numbers, long n, long bound, const char *what) {
    for (long i = 0; i < n; i++)
        if (numbers[i] < 0 || numbers[i] >= bound) {
            PyErr_Format(PyExc_IndexError, "%s: found %lld, expected 0 to %ld", what, (long long)numbers[i], bound - 1);
            return 0;
        }
    return 1;
}

/* The addresses of a tuple. NULL and an error where they are not there. */
static void **read_addresses(PyObject *addresses, long *n) {
    *n = (long)PyTuple_GET_SIZE(addresses);
    void **found = malloc((size_t)(*n + 1) * sizeof(void *));
    if (found == NULL) return (void **)PyErr_NoMemory();
    for (long i = 0; i < *n; i++) {
        found[i] = AT(void *, PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(addresses, i)));
        if (PyErr_Occurred()) {
            free(found);
            return NULL;
        }
    }
    return found;
}

PyDoc_STRVAR(body_doc,
             "body(blocks, x, rows, positions, last, frequencies, batch, steps, width, heads, kv_heads, head_width,\n"
             "     turned, inner, slots, capacity, cache_rows, attention_eps, feedforward_eps, scale, float32,\n"
             "     threads)\n\n"
             "All blocks of a body, in place on x, over addresses. Of each block there are eight: norm, product of\n"
             "queries, keys and values, output; norm, gate and up, down; keys and values of the cache, which are\n"
             "written. Rows, positions and the last slots that are seen are int64, no rows are 0; frequencies are\n"
             "float32 and all else is float32 or bfloat16. Widths in multiples of 16.");

static PyObject *body(PyObject *self, PyObject *args) {
    Address x, rows, positions, last, frequencies;
    PyObject *addresses;
    long cache_rows;
    int float32, done;
    Body b = {0};
    if (!PyArg_ParseTuple(args, "O!KKKKKlllllllllllfffpi", &PyTuple_Type, &addresses, &x, &rows, &positions, &last,
                          &frequencies, &b.batch, &b.steps, &b.width, &b.heads, &b.kv_heads, &b.head_width, &b.turned,
                          &b.inner, &b.slots, &b.capacity, &cache_rows, &b.attention_eps, &b.feedforward_eps, &b.scale,
                          &float32, &b.threads))
        return NULL;
    b.x = AT(void *, x);
    b.rows = AT(const int64_t *, rows);
    b.positions = AT(const int64_t *, positions);
    b.last = AT(const int64_t *, last);
    b.frequencies = AT(const float *, frequencies);
    b.type = float32 ? FLOAT32 : BFLOAT16;
    if (!all_below(b.positions, b.batch * b.steps, b.capacity, "position in the cache")) return NULL;
    if (!all_below(b.last, b.batch * b.steps, b.capacity, "last position that is seen")) return NULL;
    if (b.rows != NULL && !all_below(b.rows, b.batch, cache_rows, "row of the cache")) return NULL;
    void **blocks = read_addresses(addresses, &b.num_blocks);
    if (blocks == NULL) return NULL;
    b.blocks = (const Block *)(void *)blocks;
    b.num_blocks /= (long)(sizeof(Block) / sizeof(void *));
    Py_BEGIN_ALLOW_THREADS
    done = rows_body(&b);
    Py_END_ALLOW_THREADS
    free(blocks);
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(head_doc,
             "head(x, embedding, prefix, up, down, added, told, norm, unembedding, logits, rows, known, width,\n"
             "     byte_width, told_width, inner, vocabulary, symbols, eps, float32, threads)\n\n"
             "Logits of a chained head, over addresses: of x + down silu(up [x, embeddings of the prefix, told]) +\n"
             "added, normalised. The prefix is int64, of `known` symbols; 0 stands for no MLP, for nothing told, and\n"
             "for nothing added. All else is float32 or bfloat16. Widths in multiples of 16, at least 6 outputs.");

static PyObject *head(PyObject *self, PyObject *args) {
    Address x, embedding, prefix, up, down, added, told, norm, unembedding, logits;
    long symbols;
    int float32, done;
    Head h = {0};
    if (!PyArg_ParseTuple(args, "KKKKKKKKKKllllllllfpi", &x, &embedding, &prefix, &up, &down, &added, &told, &norm,
                          &unembedding, &logits, &h.rows, &h.known, &h.width, &h.byte_width, &h.told_width, &h.inner,
                          &h.vocabulary, &symbols, &h.eps, &float32, &h.threads))
        return NULL;
    h.x = AT(const void *, x);
    h.embedding = AT(const void *, embedding);
    h.prefix = AT(const int64_t *, prefix);
    h.up = AT(const void *, up);
    h.down = AT(const void *, down);
    h.added = AT(const void *, added);
    h.told = AT(const void *, told);
    h.norm = AT(const void *, norm);
    h.unembedding = AT(const void *, unembedding);
    h.logits = AT(void *, logits);
    h.stride = h.known;
    h.type = float32 ? FLOAT32 : BFLOAT16;
    if (!all_below(h.prefix, h.rows * h.known, symbols, "symbol")) return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = rows_head(&h);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* Lengths, how many, candidates, reach, symbols; or None. */
static int read_matches(PyObject *matches, Matches *m) {
    Address lengths;
    if (matches == Py_None) return 1;
    if (!PyArg_ParseTuple(matches, "Kllll", &lengths, &m->num_lengths, &m->candidates, &m->reach, &m->symbols)) return 0;
    m->lengths = AT(const int64_t *, lengths);
    if (m->candidates <= MOST_CANDIDATES && m->lengths[m->num_lengths - 1] <= LONGEST_MATCH) return 1;
    PyErr_Format(PyExc_ValueError, "matches: found %ld candidates and lengths up to %ld, expected at most %d and %d",
                 m->candidates, (long)m->lengths[m->num_lengths - 1], MOST_CANDIDATES, LONGEST_MATCH);
    return 0;
}

/* Rows, scales, projection, orders, keys, the number of orders, rows of each, numbers of a row, matches; or None. */
static int read_tables(PyObject *tables, Tables *t) {
    Address rows, scales, projection, orders, keys;
    PyObject *matches;
    if (tables == Py_None) return 1;
    if (!PyArg_ParseTuple(tables, "KKKKKlllO", &rows, &scales, &projection, &orders, &keys, &t->num_orders,
                          &t->num_rows, &t->row_width, &matches) ||
        !read_matches(matches, &t->matches))
        return 0;
    t->num_read = t->num_orders + t->matches.candidates;
    t->rows = AT(const void *, rows);
    t->scales = AT(const float *, scales);
    t->projection = AT(const void *, projection);
    t->orders = AT(const int64_t *, orders);
    t->keys = AT(const int32_t *, keys);
    return 1;
}

PyDoc_STRVAR(draw_doc,
             "draw(x, embedding, norm, of, symbols, tables, windows, noise, logits, nats, rows, known, count, width,\n"
             "     byte_width, told_width, inner, vocabulary, temperature, eps, float32, threads)\n\n"
             "Chained heads one after the other, over addresses. `of` has unembedding, up and down of each head.\n"
             "Symbols are int64 [rows, known + count], of which the first `known` are given and the others are\n"
             "written: each the largest of logits / temperature + noise, of logits alone where the noise is 0, the\n"
             "first of equals. Logits are [count, rows, vocabulary]; nats are -log p of each symbol, float64 [rows,\n"
             "count]. Noise is a tuple of its address, float64 [rows / states, states count, vocabulary], of states,\n"
             "and of the numbers from one of those rows to the next. Tables are None, or a tuple of rows, scales of\n"
             "int8 rows or 0, projection or 0, orders (int64), sorted keys (int32) of those n-grams that have rows\n"
             "or 0, number of orders, of rows of each, numbers of a row, and matches as for matches, or None. Windows\n"
             "are an address and a length: the int64 before a prefix. The caller sees to it that symbols have\n"
             "embeddings; MLPs are told sums of rows, or nothing (told_width 0). All else is as for head.");

static PyObject *draw(PyObject *self, PyObject *args) {
    Address x, embedding, norm, symbols, windows, noise, logits, nats;
    PyObject *parts, *tables;
    int float32, done;
    long n;
    Draw d = {0};
    Head *h = &d.head;
    Tables *t = &d.tables;
    if (!PyArg_ParseTuple(args, "KKKO!KO(Kl)(Kll)KKllllllllffpi", &x, &embedding, &norm, &PyTuple_Type, &parts,
                          &symbols, &tables, &windows, &t->window, &noise, &d.states, &d.noise_row, &logits, &nats,
                          &h->rows, &h->known, &d.count, &h->width, &h->byte_width, &h->told_width, &h->inner,
                          &h->vocabulary, &d.temperature, &h->eps, &float32, &h->threads))
        return NULL;
    if (!read_tables(tables, t)) return NULL;
    t->windows = AT(const int64_t *, windows);
    h->x = AT(const void *, x);
    h->embedding = AT(const void *, embedding);
    h->norm = AT(const void *, norm);
    h->type = float32 ? FLOAT32 : BFLOAT16;
    h->stride = h->known + d.count;
    h->prefix = d.symbols = AT(int64_t *, symbols);
    d.noise = AT(const double *, noise);
    d.logits = AT(void *, logits);
    d.nats = AT(double *, nats);
    void **of = read_addresses(parts, &n);
    if (of == NULL) return NULL;
    if (n != 3 * d.count) {
        free(of);
        return PyErr_Format(PyExc_ValueError, "parts: found %ld addresses, expected %ld", n, 3 * d.count);
    }
    d.of = (const void *const *)of;
    Py_BEGIN_ALLOW_THREADS
    done = rows_draw(&d);
    Py_END_ALLOW_THREADS
    free(of);
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(merge_doc,
             "merge(symbols, embedding, projection, up, down, tables, y, rows, window, patch, width, byte_width, inner,\n"
             "      vocabulary, float32, threads)\n\n"
             "One vector for each window, over addresses: projection(x) + down(silu(up(x))) + rows of tables, x the\n"
             "embeddings of its last `patch` symbols. Symbols are int64 [rows, window]; 0 stands for no up and down;\n"
             "tables are as for draw. All else is float32 or bfloat16. Widths in multiples of 16.");

static PyObject *merge(PyObject *self, PyObject *args) {
    Address symbols, embedding, projection, up, down, y;
    PyObject *tables;
    long vocabulary;
    int float32, done;
    Merger m = {0};
    if (!PyArg_ParseTuple(args, "KKKKKOKlllllllpi", &symbols, &embedding, &projection, &up, &down, &tables, &y, &m.rows,
                          &m.window, &m.patch, &m.width, &m.byte_width, &m.inner, &vocabulary, &float32, &m.threads))
        return NULL;
    if (!read_tables(tables, &m.tables)) return NULL;
    m.symbols = m.tables.windows = AT(const int64_t *, symbols);
    m.tables.window = m.window;
    m.embedding = AT(const void *, embedding);
    m.projection = AT(const void *, projection);
    m.up = AT(const void *, up);
    m.down = AT(const void *, down);
    m.y = AT(void *, y);
    m.type = float32 ? FLOAT32 : BFLOAT16;
    for (long r = 1; r <= m.rows; r++)
        if (!all_below(m.symbols + r * m.window - m.patch, m.patch, vocabulary, "symbol")) return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = rows_merge(&m);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(sums_doc,
             "sums(windows, tables, y, num, window, float32)\n\n"
             "The sum of the rows of n-grams and matches at the end of each window, over addresses: windows are int64\n"
             "[num, window], at least as long as the longest n-gram; tables are as for draw, whose projection is not\n"
             "read; sums are float32 or bfloat16.");

static PyObject *sums(PyObject *self, PyObject *args) {
    Address windows, y;
    PyObject *tables;
    int float32, done;
    Sums s = {0};
    if (!PyArg_ParseTuple(args, "KOKllp", &windows, &tables, &y, &s.num, &s.tables.window, &float32) ||
        !read_tables(tables, &s.tables))
        return NULL;
    s.tables.windows = AT(const int64_t *, windows);
    s.y = AT(void *, y);
    s.type = float32 ? FLOAT32 : BFLOAT16;
    Py_BEGIN_ALLOW_THREADS
    done = rows_sum(&s);
    Py_END_ALLOW_THREADS
    if (!done) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(matches_doc,
             "matches(windows, prefixes, matches, rows, num, threads)\n\n"
             "The row of each candidate (int64 [num, candidates]) after each of some windows and the prefix behind it.\n"
             "Windows are the address of int64, how many are `inner` apart before the next ones, `outer` after those,\n"
             "outer, inner, and the length of each; prefixes are the address of int64 [num, known] and known; matches\n"
             "the address of lengths (int64), how many, candidates, reach and symbols.");

static PyObject *matches(PyObject *self, PyObject *args) {
    Address windows, prefixes, rows;
    PyObject *given;
    Matches m = {0};
    long together, outer, inner, width, known, num;
    int threads;
    if (!PyArg_ParseTuple(args, "(Kllll)(Kl)OKli", &windows, &together, &outer, &inner, &width, &prefixes, &known,
                          &given, &rows, &num, &threads) ||
        !read_matches(given, &m))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    _Pragma("omp parallel for schedule(static) num_threads(threads)")
    for (long i = 0; i < num; i++) {
        const Ending ending = {AT(const int64_t *, windows) + i / together * outer + i % together * inner,
                               AT(const int64_t *, prefixes) + i * known, width, known};
        find_match_rows(&m, &ending, AT(int64_t *, rows) + i * m.candidates);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyDoc_STRVAR(norm_doc,
             "norm(x, weight, y, rows, width, eps, float32)\n\n"
             "y = x / sqrt(mean(x^2) + eps) * weight of each row, over addresses of float32 or bfloat16.");

static PyObject *norm(PyObject *self, PyObject *args) {
    Address x, weight, y;
    long rows, width;
    float eps;
    int float32;
    if (!PyArg_ParseTuple(args, "KKKllfp", &x, &weight, &y, &rows, &width, &eps, &float32)) return NULL;
    rows_norm(AT(const void *, x), AT(const void *, weight), AT(void *, y), rows, width, eps,
              float32 ? FLOAT32 : BFLOAT16);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(pairs_doc,
             "pairs(use)\n\n"
             "Use the unit of the processor that multiplies pairs of bfloat16, where it has one, or do not; returns\n"
             "what was said before. For tests, and to compare.");

static PyObject *pairs(PyObject *self, PyObject *args) {
    int use;
    if (!PyArg_ParseTuple(args, "p", &use)) return NULL;
    return PyBool_FromLong(dot_allow(use));
}

static PyMethodDef methods[] = {
    {"pairs", pairs, METH_VARARGS, pairs_doc},
    {"linear", linear, METH_VARARGS, linear_doc},
    {"attention", attention, METH_VARARGS, attention_doc},
    {"body", body, METH_VARARGS, body_doc},
    {"head", head, METH_VARARGS, head_doc},
    {"draw", draw, METH_VARARGS, draw_doc},
    {"merge", merge, METH_VARARGS, merge_doc},
    {"sums", sums, METH_VARARGS, sums_doc},
    {"matches", matches, METH_VARARGS, matches_doc},
    {"norm", norm, METH_VARARGS, norm_doc},
    {NULL, NULL, 0, NULL},
};
#else
static int supported(void) { return 0; }
static PyMethodDef methods[] = {{NULL, NULL, 0, NULL}};
#endif

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_rows", "Products and blocks of a few rows, and attention.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__rows(void) {
    if (!supported()) {
        PyErr_SetString(PyExc_ImportError, "the processor has no AVX2 with FMA");
        return NULL;
    }
    return PyModule_Create(&definition);
}
