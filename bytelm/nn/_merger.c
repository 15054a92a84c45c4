/* From the symbols of a few windows to one vector each. */
#include <stdlib.h>

#include "_blocks.h"
#include "_tables.h"

#ifdef ROWS_SUPPORTED
#define DEFINE_MERGER(TYPE, NAME, FROM, TO)                                                                            \
    static int merge_##NAME(const Merger *m, TYPE *one, TYPE *other, TYPE *sums) {                                     \
        const TYPE *embedding = m->embedding;                                                                          \
        long inputs = m->patch * m->byte_width;                                                                        \
        for (long r = 0; r < m->rows; r++)                                                                             \
            for (long i = 0; i < m->patch; i++)                                                                        \
                memcpy(one + r * inputs + i * m->byte_width,                                                           \
                       embedding + m->symbols[(r + 1) * m->window - m->patch + i] * m->byte_width,                     \
                       sizeof(TYPE) * (size_t)m->byte_width);                                                          \
        if (!linear_##NAME(one, m->projection, m->y, m->rows, m->width, inputs, m->threads)) return 0;                 \
        if (m->up != NULL) {                                                                                           \
            if (!linear_##NAME(one, m->up, other, m->rows, m->inner, inputs, m->threads)) return 0;                    \
            silu_##NAME(other, m->rows * m->inner);                                                                    \
            if (!linear_##NAME(other, m->down, one, m->rows, m->width, m->inner, m->threads)) return 0;                \
            add_##NAME(m->y, one, m->rows * m->width);                                                                 \
        }                                                                                                              \
        if (m->tables.rows == NULL) return 1;                                                                          \
        find_rows(&m->tables, NULL, 0, 0, m->rows);                                                                    \
        if (!look_up_##NAME(&m->tables, sums, one, m->rows, m->width, m->threads)) return 0;                           \
        add_##NAME(m->y, one, m->rows * m->width);                                                                     \
        return 1;                                                                                                      \
    }

FOR_BOTH(DEFINE_SHARED)
FOR_BOTH(DEFINE_SILU)
FOR_BOTH(DEFINE_LOOK_UP)
FOR_BOTH(DEFINE_MERGER)

int rows_merge(const Merger *m) {
    long one = m->rows * larger(m->patch * m->byte_width, m->width), other = m->rows * m->inner;
    long found = m->rows * m->tables.num_read, sums = m->rows * m->tables.row_width;
    float *memory = malloc(sizeof(int64_t) * (size_t)found + sizeof(float) * (size_t)(one + other + sums + 1));
    if (memory == NULL) return 0;
    Merger of = *m;
    of.tables.found = (int64_t *)(void *)memory;
    float *rest = memory + 2 * found;
    int done = m->type == FLOAT32
                   ? merge_float(&of, rest, rest + one, rest + one + other)
                   : merge_bf16(&of, (uint16_t *)rest, (uint16_t *)(rest + one), (uint16_t *)(rest + one + other));
    free(memory);
    return done;
}

int rows_sum(const Sums *s) {
    Tables of = s->tables;
    of.projection = NULL;
    of.found = malloc(sizeof(int64_t) * (size_t)(s->num * of.num_read + 1));
    if (of.found == NULL) return 0;
    find_rows(&of, NULL, 0, 0, s->num);
    int done = s->type == FLOAT32 ? look_up_float(&of, NULL, s->y, s->num, of.row_width, 1)
                                  : look_up_bf16(&of, NULL, s->y, s->num, of.row_width, 1);
    free(of.found);
    return done;
}
#endif
