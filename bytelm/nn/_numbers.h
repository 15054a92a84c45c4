/* bfloat16 and float32, for code that is written once for both. */
#pragma once
#include <stdint.h>
#include <string.h>

typedef enum { BFLOAT16, FLOAT32, INT8 } Type;

#if defined(__GNUC__)
#define NUMBER static inline __attribute__((always_inline))
#else
#define NUMBER static inline
#endif

NUMBER float from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

NUMBER uint16_t to_bf16(float value) { /* to the nearest, ties to even */
    uint32_t wide;
    memcpy(&wide, &value, 4);
    uint32_t nearest = (wide + 0x7FFFu + ((wide >> 16) & 1u)) >> 16;
    return (uint16_t)(value != value ? 0x7FC0u : nearest);
}

NUMBER float from_float(float value) { return value; }
NUMBER float to_float(float value) { return value; }

/* e^x (Cody and Waite 1980): 2^n times a polynomial on |r| <= log(2) / 2, within 2 units in the last place. */
NUMBER float exponential(float x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23, by which a sum is rounded to a whole number */
    x = x > 88.0f ? 88.0f : (x < -87.0f ? -87.0f : x);
    float n = (x * 1.44269504f + shift) - shift;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}
