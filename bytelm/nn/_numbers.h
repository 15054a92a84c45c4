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

/* The same of x <= 0 in double precision, within 2 units in the last place; below -708 as at -708. */
NUMBER double fine_exponential(double x) {
    const double shift = 6755399441055744.0; /* 1.5 * 2^52 */
    x = x < -708.0 ? -708.0 : x;
    double n = (x * 1.4426950408889634 + shift) - shift;
    double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0; /* 1 / 13! */
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    double whole = n + 1023.0 + 4503599627370496.0; /* 2^52: the low bits of the sum are the exponent */
    int64_t bits;
    memcpy(&bits, &whole, 8);
    bits <<= 52;
    double power;
    memcpy(&power, &bits, 8);
    return p * power;
}
