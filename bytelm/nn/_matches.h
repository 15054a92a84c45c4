/* Where a text has been before: the longest matches of its end, and what followed them. As in bytelm/nn/matches.py. */
#pragma once
#include <stdint.h>

#define MOST_CANDIDATES 8
#define LONGEST_MATCH 64

typedef struct {
    const int64_t *lengths; /* ascending, the last at most LONGEST_MATCH; NULL: matches are not looked for */
    long num_lengths, candidates, reach, symbols;
} Matches;

typedef struct {
    const int64_t *window, *prefix;
    long width, known; /* numbers of both */
} Ending;

static inline int64_t symbol_at(const Ending *e, long i) { return i < e->width ? e->window[i] : e->prefix[i - e->width]; }

/* How many symbols before the one at `j` are those at the end; the last of them was seen to be. */
static inline long match_length(const Ending *e, const int64_t *tail, long j, long first, long longest) {
    long length = 1;
    if (longest > j - first) longest = j - first;
    if (j <= e->width)
        while (length < longest && e->window[j - 1 - length] == tail[length]) length++;
    else
        while (length < longest && symbol_at(e, j - 1 - length) == tail[length]) length++;
    return length;
}

/* The row of each candidate: by its length and symbol, or the first of its rows where there is none. */
static inline void find_match_rows(const Matches *m, const Ending *e, int64_t *rows) {
    int64_t symbols[MOST_CANDIDATES], tail[LONGEST_MATCH];
    long lengths[MOST_CANDIDATES], found = 0, end = e->width + e->known;
    long first = e->width > m->reach ? e->width - m->reach : 0, longest = m->lengths[m->num_lengths - 1], known = 0;
    while (known < longest && end - 1 - known >= first && (tail[known] = symbol_at(e, end - 1 - known)) >= 0) known++;
    if (known < longest) longest = known;
    for (long j = end - 1; j > first && longest >= m->lengths[0]; j--) {
        if (symbol_at(e, j - 1) != tail[0]) continue;
        long length = match_length(e, tail, j, first, longest), at = 0, last;
        if (length < m->lengths[0]) continue;
        int64_t symbol = symbol_at(e, j);
        while (at < found && lengths[at] >= length && symbols[at] != symbol) at++;
        if (at == m->candidates || (at < found && lengths[at] >= length)) continue;
        for (last = at; last < found && symbols[last] != symbol; last++) {}
        if (last == found && found < m->candidates) found++;
        if (last == m->candidates) last--;
        for (; last > at; last--) symbols[last] = symbols[last - 1], lengths[last] = lengths[last - 1];
        symbols[at] = symbol, lengths[at] = length;
    }
    for (long c = 0; c < m->candidates; c++) {
        long step = m->num_lengths - 1, of_each = m->num_lengths * m->symbols + 1;
        if (c < found)
            while (m->lengths[step] > lengths[c]) step--;
        rows[c] = c * of_each + (c < found ? 1 + step * m->symbols + symbols[c] % m->symbols : 0);
    }
}
