/* y = x weight^T + bias, in bfloat16, where the processor has dot products of it: at least 6 outputs, inputs in multiples
 * of 16, no bias where it is NULL. */
#pragma once
#include <stdint.h>

int dot_supported(void);

/* Whether to use the unit where there is one; returns whether it was used until now. */
int dot_allow(int use);
void dot_linear(const uint16_t *x, const uint16_t *weight, const uint16_t *bias, uint16_t *y, long rows, long outputs,
                long inputs, int threads);

#if defined(__x86_64__) && defined(__GNUC__)
#include <xmmintrin.h>

#define LINE 64      /* bytes of a cache */
#define AHEAD 2      /* lines of each next output that are asked for early: a stream of its own, which begins slowly */
#define SHORT 24     /* lines up to which an output is all asked for: its stream ends before it is known as one */
#define DISTANCE 8192 /* bytes before they are read, which takes as long as memory does to answer */

/* Asks for `group` outputs from `next` on, `bytes` apart, from byte `from` of each on. */
static inline __attribute__((always_inline)) void ask_early(const void *weight, long bytes, long next, long group,
                                                             long outputs, long from) {
    const char *first = (const char *)weight + from;
    if (bytes <= SHORT * LINE) {
        next += DISTANCE / bytes;
        for (long o = next; o < next + group && o < outputs; o++)
            for (long at = 0; at < bytes; at += LINE) _mm_prefetch(first + o * bytes + at, _MM_HINT_T1);
    } else {
        for (long o = next; o < next + group && o < outputs; o++)
            for (long k = 0; k < AHEAD; k++) _mm_prefetch(first + o * bytes + k * LINE, _MM_HINT_T0);
    }
}
#endif
