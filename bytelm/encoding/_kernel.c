/* The two inner loops of an encoding: code points to code words by table, and code words to code points by trie.
 *
 * Both take only what is well formed and say where they stopped; what to do about the rest is decided in Python.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define MAX_WORD 4
#define SCRATCH 4096     /* code points decoded before they are copied to the result */
#define ILLEGAL INT32_MIN /* trie entry: no word goes on with this byte */

typedef struct {
    const uint32_t *words;  /* memory holds the bytes of the word in order */
    const uint8_t *lengths;
    int escapes;            /* whether U+DC80..U+DCFF are taken */
} Table;

static inline int refused(const Table *table, uint32_t c) {
    return (c & 0xFFFFF800u) == 0xD800u && !(table->escapes && c >= 0xDC80u && c <= 0xDCFFu);
}

/* One loop for each width of a str. Writes MAX_WORD bytes at a time: out has that much room for every character. */
#define DEFINE_LOOPS(NAME, TYPE, CHECK)                                                                    \
    static Py_ssize_t encode_##NAME(const Table *table, const TYPE *text, Py_ssize_t n, uint8_t *out) {    \
        uint8_t *start = out;                                                                              \
        for (Py_ssize_t i = 0; i < n; i++) {                                                               \
            uint32_t c = text[i];                                                                          \
            if (CHECK && refused(table, c)) return -1;                                                     \
            memcpy(out, table->words + c, MAX_WORD);                                                       \
            out += table->lengths[c];                                                                      \
        }                                                                                                  \
        return out - start;                                                                                \
    }                                                                                                      \
    static Py_ssize_t size_##NAME(const Table *table, const TYPE *text, Py_ssize_t n) {                    \
        Py_ssize_t size = 0;                                                                               \
        for (Py_ssize_t i = 0; i < n; i++) size += table->lengths[text[i]];                                \
        return size;                                                                                       \
    }

DEFINE_LOOPS(1, Py_UCS1, 0)
DEFINE_LOOPS(2, Py_UCS2, 1)
DEFINE_LOOPS(4, Py_UCS4, 1)

static Py_ssize_t encode_str(const Table *table, PyObject *text, uint8_t *out) {
    Py_ssize_t n = PyUnicode_GET_LENGTH(text);
    switch (PyUnicode_KIND(text)) {
        case PyUnicode_1BYTE_KIND: return encode_1(table, PyUnicode_1BYTE_DATA(text), n, out);
        case PyUnicode_2BYTE_KIND: return encode_2(table, PyUnicode_2BYTE_DATA(text), n, out);
        default: return encode_4(table, PyUnicode_4BYTE_DATA(text), n, out);
    }
}

static Py_ssize_t size_str(const Table *table, PyObject *text) {
    Py_ssize_t n = PyUnicode_GET_LENGTH(text);
    switch (PyUnicode_KIND(text)) {
        case PyUnicode_1BYTE_KIND: return size_1(table, PyUnicode_1BYTE_DATA(text), n);
        case PyUnicode_2BYTE_KIND: return size_2(table, PyUnicode_2BYTE_DATA(text), n);
        default: return size_4(table, PyUnicode_4BYTE_DATA(text), n);
    }
}

static int check_table(const Py_buffer *words, const Py_buffer *lengths) {
    if (words->len == 0x110000 * 4 && lengths->len == 0x110000) return 1;
    PyErr_SetString(PyExc_ValueError, "words and lengths must have an entry for each of 0x110000 code points");
    return 0;
}

PyDoc_STRVAR(encode_doc,
"encode(texts, words, lengths, escapes, out, ends) -> int\n\n"
"Write the code words of all texts one after another to out, and to ends (int64) where each text ends.\n"
"Returns len(texts), or the number of the first text that holds a surrogate which is not taken.");

static PyObject *encode(PyObject *module, PyObject *args) {
    PyObject *texts, *result = NULL;
    Py_buffer words, lengths, out, ends;
    Table table;
    if (!PyArg_ParseTuple(args, "O!y*y*pw*w*", &PyList_Type, &texts, &words, &lengths, &table.escapes, &out, &ends))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(texts), room = out.len, number = 0;
    table.words = words.buf;
    table.lengths = lengths.buf;
    if (!check_table(&words, &lengths)) goto done;
    if (ends.len < count * (Py_ssize_t)sizeof(int64_t)) {
        PyErr_SetString(PyExc_ValueError, "ends must have an entry for every text");
        goto done;
    }
    uint8_t *at = out.buf;
    for (; number < count; number++) {
        PyObject *text = PyList_GET_ITEM(texts, number);
        if (!PyUnicode_Check(text)) {
            PyErr_Format(PyExc_TypeError, "text %zd: found %s, expected str", number, Py_TYPE(text)->tp_name);
            goto done;
        }
        if (room / MAX_WORD < PyUnicode_GET_LENGTH(text)) {
            PyErr_SetString(PyExc_ValueError, "out must have room for 4 bytes of every character");
            goto done;
        }
        Py_ssize_t written = encode_str(&table, text, at);
        if (written < 0) break;
        at += written;
        room -= written;
        ((int64_t *)ends.buf)[number] = at - (uint8_t *)out.buf;
    }
    result = PyLong_FromSsize_t(number);
done:
    PyBuffer_Release(&words);
    PyBuffer_Release(&lengths);
    PyBuffer_Release(&out);
    PyBuffer_Release(&ends);
    return result;
}

PyDoc_STRVAR(encode_large_doc,
"encode_large(text, words, lengths, escapes) -> bytearray | None\n\n"
"The code words of one text in no more memory than they need; None if it holds a surrogate which is not taken.");

static PyObject *encode_large(PyObject *module, PyObject *args) {
    PyObject *text, *result = NULL;
    Py_buffer words, lengths;
    Table table;
    if (!PyArg_ParseTuple(args, "Uy*y*p", &text, &words, &lengths, &table.escapes)) return NULL;
    table.words = words.buf;
    table.lengths = lengths.buf;
    if (check_table(&words, &lengths)) {
        Py_ssize_t size = size_str(&table, text);
        result = PyByteArray_FromStringAndSize(NULL, size + MAX_WORD);
        if (result != NULL) {
            Py_ssize_t written = encode_str(&table, text, (uint8_t *)PyByteArray_AS_STRING(result));
            if (written < 0) {
                Py_DECREF(result);
                result = Py_NewRef(Py_None);
            } else if (PyByteArray_Resize(result, written) < 0) {
                Py_CLEAR(result);
            }
        }
    }
    PyBuffer_Release(&words);
    PyBuffer_Release(&lengths);
    return result;
}

/* The str that grows: of the narrowest kind that holds what came so far, with room for every word that may come. */
typedef struct {
    PyObject *str;
    Py_ssize_t room, size;
    Py_UCS4 largest;
} Result;

static Py_UCS4 kind_limit(Py_UCS4 c) { return c < 0x80 ? 0x7F : c < 0x100 ? 0xFF : c < 0x10000 ? 0xFFFF : 0x10FFFF; }

static int append(Result *result, const Py_UCS4 *scratch, Py_ssize_t n, Py_UCS4 largest) {
    if (kind_limit(largest) > result->largest) {
        PyObject *wider = PyUnicode_New(result->room, kind_limit(largest));
        if (wider == NULL) return 0;
        if (result->size && PyUnicode_CopyCharacters(wider, 0, result->str, 0, result->size) < 0) {
            Py_DECREF(wider);
            return 0;
        }
        Py_SETREF(result->str, wider);
        result->largest = kind_limit(largest);
    }
    void *data = PyUnicode_DATA(result->str);
    switch (PyUnicode_KIND(result->str)) {
        case PyUnicode_1BYTE_KIND: {
            Py_UCS1 *to = (Py_UCS1 *)data + result->size;
            for (Py_ssize_t i = 0; i < n; i++) to[i] = (Py_UCS1)scratch[i];
            break;
        }
        case PyUnicode_2BYTE_KIND: {
            Py_UCS2 *to = (Py_UCS2 *)data + result->size;
            for (Py_ssize_t i = 0; i < n; i++) to[i] = (Py_UCS2)scratch[i];
            break;
        }
        default: memcpy((Py_UCS4 *)data + result->size, scratch, n * sizeof(Py_UCS4));
    }
    result->size += n;
    return 1;
}

/* Decode to scratch until it is full or a word is not one; *at is left at the start of the first word not taken. */
static Py_ssize_t decode_some(const int32_t *trie, const uint8_t *data, Py_ssize_t n, Py_ssize_t *at, Py_UCS4 *scratch,
                              Py_UCS4 *largest) {
    Py_ssize_t i = *at, count = 0;
    Py_UCS4 all = 0;
    while (count < SCRATCH && i < n) {
        Py_ssize_t start = i;
        int32_t entry = trie[data[i++]];
        while (entry < 0) {
            if (entry == ILLEGAL || i == n) {
                *at = start;
                *largest = all;
                return count;
            }
            entry = trie[(Py_ssize_t)-entry * 256 + data[i++]];
        }
        scratch[count++] = (Py_UCS4)entry;
        all |= (Py_UCS4)entry;
    }
    *at = i;
    *largest = all > 0x10FFFF ? 0x10FFFF : all;
    return count;
}

PyDoc_STRVAR(decode_doc,
"decode(data, trie, unit) -> str | None\n\n"
"The text of data, whose words are at least unit bytes long; None if data is not words of the trie alone.\n\n"
"trie: int32[nodes, 256], the root first. An entry is a scalar value, minus the number of a node, or the least int32\n"
"where no word goes on with the byte.");

static PyObject *decode(PyObject *module, PyObject *args) {
    Py_buffer data, trie;
    Py_ssize_t unit, at = 0;
    Py_UCS4 scratch[SCRATCH];
    Result result = {NULL, 0, 0, 0x7F};
    int whole = 1;
    if (!PyArg_ParseTuple(args, "y*y*n", &data, &trie, &unit)) return NULL;
    result.room = data.len / unit;
    result.str = PyUnicode_New(result.room, result.largest);
    while (result.str != NULL && whole && at < data.len) {
        Py_ssize_t before = at;
        Py_UCS4 largest;
        Py_ssize_t n = decode_some(trie.buf, data.buf, data.len, &at, scratch, &largest);
        whole = n == SCRATCH || at == data.len;
        if (at == before) break;
        if (!append(&result, scratch, n, largest)) Py_CLEAR(result.str);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&trie);
    if (result.str != NULL && !whole) Py_SETREF(result.str, Py_NewRef(Py_None));
    else if (result.str != NULL && PyUnicode_Resize(&result.str, result.size) < 0) return NULL;
    return result.str;
}

static PyMethodDef methods[] = {
    {"encode", encode, METH_VARARGS, encode_doc},
    {"encode_large", encode_large, METH_VARARGS, encode_large_doc},
    {"decode", decode, METH_VARARGS, decode_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_kernel", "Inner loops of the encodings.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&definition); }
