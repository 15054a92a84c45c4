/* bfloat16 and float32, for code that is written once for both. */
#include <stdint.h>
#include <string.h>

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
