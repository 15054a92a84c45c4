/* N-gram tables, for heads and mergers. */
#pragma once
#include "_blocks.h"
#include "_parts.h"

#ifdef ROWS_SUPPORTED
/* Keys are spread evenly: nearly all of a large table lie within so many of where they would then be. */
#define NEAR 1024

/* The row of an n-gram of order `o`, by its key: its own, or the one of all that have none. */
static inline int64_t chosen_row(const Tables *t, uint32_t key, long o) {
    int32_t sought = (int32_t)(key ^ 0x80000000u);
    long num = t->num_orders * (t->num_rows - 1);
    long from = (long)((uint64_t)key * (uint64_t)num >> 32) - NEAR, to = from + 2 * NEAR;
    if (from < 0 || t->keys[from] >= sought) from = 0;
    if (to > num || t->keys[to - 1] < sought) to = num;
    while (from < to) {
        long half = (from + to) / 2;
        if (t->keys[half] < sought) from = half + 1;
        else to = half;
    }
    return from < num && t->keys[from] == sought ? from + t->num_orders : o;
}

/* Where the rows of the n-grams are that end with the last known symbol of each row, and those of matches: as in
   bytelm/nn/ngram.py. */
static inline void find_rows(const Tables *t, const int64_t *prefix, long stride, long known, long rows) {
    for (long r = 0; r < rows; r++) {
        int64_t *found = t->found + r * t->num_read;
        for (long o = 0; o < t->num_orders; o++) {
            uint32_t key = (uint32_t)t->orders[o];
            for (long i = known - t->orders[o]; i < known; i++) {
                int64_t symbol = i < 0 ? t->windows[(r + 1) * t->window + i] : prefix[r * stride + i];
                key = (key * 257u + (uint32_t)(symbol + 1)) * 0x9E3779B1u;
                key ^= key >> 15;
            }
            found[o] = t->keys != NULL ? chosen_row(t, key, o) : (int64_t)key % t->num_rows + o * t->num_rows;
        }
        if (t->matches.lengths == NULL) continue;
        const Ending ending = {t->windows + r * t->window, prefix + r * stride, t->window, known};
        find_match_rows(&t->matches, &ending, found + t->num_orders);
        for (long c = t->num_orders; c < t->num_read; c++) found[c] += t->num_orders * t->num_rows;
    }
}

#define DEFINE_LOOK_UP(TYPE, NAME, FROM, TO)                                                                           \
    /* Those rows, added up, at the width of the state. */                                                             \
    AVX2 static int look_up_##NAME(const Tables *t, TYPE *sums, TYPE *added, long num, long outputs, int threads) {    \
        long width = t->row_width;                                                                                     \
        TYPE *to = t->projection == NULL ? added : sums;                                                               \
        for (long r = 0; r < num; r++)                                                                                 \
            for (long i = 0; i < width; i++) {                                                                         \
                float sum = 0;                                                                                         \
                for (long o = 0; o < t->num_read; o++) {                                                               \
                    long at = t->found[r * t->num_read + o];                                                           \
                    const TYPE *rows = t->rows;                                                                        \
                    const int8_t *codes = t->rows;                                                                     \
                    sum += t->scales == NULL ? FROM(rows[at * width + i])                                              \
                                             : FROM(TO((float)codes[at * width + i] * t->scales[at]));                 \
                }                                                                                                      \
                to[r * width + i] = TO(sum);                                                                           \
            }                                                                                                          \
        return t->projection == NULL ||                                                                                \
               linear_##NAME(sums, t->projection, added, num, outputs, width, threads);                                \
    }
#endif
