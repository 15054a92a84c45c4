/* What the parts of the core for processors that multiply pairs of bfloat16 share: AVX512-BF16. */
#pragma once
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__) && (__GNUC__ >= 10 || defined(__clang__))
#define DOT_SUPPORTED
#include <immintrin.h>

#define PAIRS 32 /* numbers that one instruction multiplies */
#define DOT __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define INLINE_DOT static inline __attribute__((always_inline)) DOT

/* The numbers from there on: all that one instruction takes, or as many as a mask says. */
INLINE_DOT __m512bh dot_load(const uint16_t *from) { return (__m512bh)_mm512_loadu_si512(from); }
INLINE_DOT __m512bh dot_load_some(const uint16_t *from, __mmask32 mask) {
    return (__m512bh)_mm512_maskz_loadu_epi16(mask, from);
}

/* The sum of each of four vectors. A vector is added up in the same order wherever it stands among them. */
INLINE_DOT __m128 dot_sums(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
    __m512 all = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    __m128 pa = _mm512_castps512_ps128(all), pb = _mm512_extractf32x4_ps(all, 1);
    __m128 pc = _mm512_extractf32x4_ps(all, 2), pd = _mm512_extractf32x4_ps(all, 3);
    __m128 low = _mm_add_ps(_mm_shuffle_ps(pa, pb, 0x44), _mm_shuffle_ps(pa, pb, 0xEE));
    __m128 high = _mm_add_ps(_mm_shuffle_ps(pc, pd, 0x44), _mm_shuffle_ps(pc, pd, 0xEE));
    return _mm_add_ps(_mm_shuffle_ps(low, high, 0x88), _mm_shuffle_ps(low, high, 0xDD));
}
#endif
