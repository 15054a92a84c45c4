/* Chained heads of a few states: the logits after known symbols, and symbols drawn one after the other. */
#include <math.h>
#include <stdlib.h>

#include "_blocks.h"
#include "_parts.h"
#include "_tables.h"

#ifdef ROWS_SUPPORTED
#define DEFINE_HEAD(TYPE, NAME, FROM, TO)                                                                              \
    static int head_##NAME(const Head *h, TYPE *state, TYPE *one, TYPE *other) {                                       \
        long width = h->width, told = h->told_width, inputs = width + h->known * h->byte_width + told;                 \
        const TYPE *x = h->x, *embedding = h->embedding;                                                               \
        memcpy(state, x, sizeof(TYPE) * (size_t)(h->rows * width));                                                    \
        if (h->up != NULL) {                                                                                           \
            for (long r = 0; r < h->rows; r++) {                                                                       \
                memcpy(one + r * inputs, x + r * width, sizeof(TYPE) * (size_t)width);                                 \
                for (long n = 0; n < h->known; n++)                                                                    \
                    memcpy(one + r * inputs + width + n * h->byte_width,                                               \
                           embedding + h->prefix[r * h->stride + n] * h->byte_width,                                   \
                           sizeof(TYPE) * (size_t)h->byte_width);                                                      \
                if (told > 0)                                                                                          \
                    memcpy(one + (r + 1) * inputs - told, (const TYPE *)h->told + r * told,                            \
                           sizeof(TYPE) * (size_t)told);                                                               \
            }                                                                                                          \
            if (!linear_##NAME(one, h->up, other, h->rows, h->inner, inputs, h->threads)) return 0;                    \
            silu_##NAME(other, h->rows * h->inner);                                                                    \
            if (!linear_##NAME(other, h->down, one, h->rows, width, h->inner, h->threads)) return 0;                   \
            add_##NAME(state, one, h->rows * width);                                                                   \
        }                                                                                                              \
        if (h->added != NULL) add_##NAME(state, h->added, h->rows * width);                                            \
        norm_##NAME(state, h->norm, one, h->rows, width, h->eps);                                                      \
        return linear_##NAME(one, h->unembedding, h->logits, h->rows, h->vocabulary, width, h->threads);               \
    }                                                                                                                  \
    /* The largest of logits / temperature + noise, the first of equals; what is not a number is larger than all. */   \
    AVX2 static long choose_##NAME(const TYPE *restrict logits, const double *restrict noise, long n,                  \
                                   float temperature) {                                                                \
        float most = FROM(logits[0]);                                                                                  \
        long best = 0;                                                                                                 \
        for (long v = 1; v < n && most == most; v++) {                                                                 \
            float logit = FROM(logits[v]);                                                                             \
            if (!(logit <= most)) most = logit, best = v;                                                              \
        }                                                                                                              \
        if (noise == NULL || most != most) return best;                                                                \
        float shift = temperature == 1 ? 0 : most;                                                                     \
        double highest = -INFINITY;                                                                                    \
        best = 0;                                                                                                      \
        for (long v = 0; v < n; v++) {                                                                                 \
            float score = FROM(logits[v]);                                                                             \
            double number = (double)(temperature == 1 ? score : (score - shift) / temperature) + noise[v];             \
            if (number > highest) highest = number, best = v;                                                          \
        }                                                                                                              \
        return best;                                                                                                   \
    }                                                                                                                  \
    /* -log p of a symbol. */                                                                                          \
    AVX2 static double nats_##NAME(const TYPE *restrict logits, long n, long symbol) {                                 \
        float most = -INFINITY;                                                                                        \
        double sum = 0;                                                                                                \
        _Pragma("omp simd reduction(max : most)")                                                                      \
        for (long v = 0; v < n; v++) most = FROM(logits[v]) > most ? FROM(logits[v]) : most;                           \
        _Pragma("omp simd reduction(+ : sum)")                                                                         \
        for (long v = 0; v < n; v++) sum += fine_exponential((double)FROM(logits[v]) - (double)most);                  \
        return log(sum) - ((double)FROM(logits[symbol]) - (double)most);                                               \
    }                                                                                                                  \
    static int draw_##NAME(const Draw *d, Head h, TYPE *memory, long room) {                                           \
        TYPE *added = memory, *sums = added + h.rows * h.width, *work = sums + h.rows * d->tables.row_width;           \
        for (long n = 0; n < d->count; n++, h.known++) {                                                               \
            h.unembedding = d->of[3 * n], h.up = d->of[3 * n + 1], h.down = d->of[3 * n + 2];                          \
            h.logits = (TYPE *)d->logits + n * h.rows * h.vocabulary;                                                  \
            h.added = d->tables.rows == NULL ? NULL : added;                                                           \
            h.told = d->tables.projection == NULL ? added : sums;                                                      \
            if (h.added != NULL) {                                                                                     \
                find_rows(&d->tables, h.prefix, h.stride, h.known, h.rows);                                            \
                if (!look_up_##NAME(&d->tables, sums, added, h.rows, h.width, h.threads)) return 0;                    \
            }                                                                                                          \
            if (!head_##NAME(&h, work, work + room, work + 2 * room)) return 0;                                        \
            for (long r = 0; r < h.rows; r++) {                                                                        \
                const double *noise = d->noise == NULL ? NULL                                                          \
                                                       : d->noise + r / d->states * d->noise_row +                     \
                                                             (r % d->states * d->count + n) * h.vocabulary;            \
                const TYPE *logits = (TYPE *)h.logits + r * h.vocabulary;                                              \
                long symbol = choose_##NAME(logits, noise, h.vocabulary, d->temperature);                              \
                d->symbols[r * h.stride + h.known] = symbol;                                                           \
                d->nats[r * d->count + n] = nats_##NAME(logits, h.vocabulary, symbol);                                 \
            }                                                                                                          \
        }                                                                                                              \
        return 1;                                                                                                      \
    }

FOR_BOTH(DEFINE_NORM)
FOR_BOTH(DEFINE_SHARED)
FOR_BOTH(DEFINE_SILU)
FOR_BOTH(DEFINE_LOOK_UP)
FOR_BOTH(DEFINE_HEAD)

static long room_of(const Head *h, long known) {
    return h->rows * larger(h->width + known * h->byte_width + h->told_width, h->inner);
}

int rows_head(const Head *h) {
    long room = room_of(h, h->known);
    float *memory = malloc(sizeof(float) * (size_t)(3 * room)), *one = memory + room, *other = one + room;
    int done = memory != NULL;
    if (done && h->type == FLOAT32) done = head_float(h, memory, one, other);
    else if (done) done = head_bf16(h, (uint16_t *)memory, (uint16_t *)one, (uint16_t *)other);
    free(memory);
    return done;
}

int rows_draw(const Draw *d) {
    const Head *h = &d->head;
    long room = room_of(h, h->known + d->count - 1);
    size_t found = sizeof(int64_t) * (size_t)(h->rows * d->tables.num_read);
    char *memory = malloc(found + sizeof(float) * (size_t)(3 * room + h->rows * (h->width + d->tables.row_width)));
    if (memory == NULL) return 0;
    Draw of = *d;
    of.tables.found = (int64_t *)(void *)memory;
    void *rest = memory + found;
    int done = h->type == FLOAT32 ? draw_float(&of, *h, rest, room) : draw_bf16(&of, *h, rest, room);
    free(memory);
    return done;
}
#endif
