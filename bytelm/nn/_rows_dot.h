/* y = x weight^T + bias, in bfloat16, where the processor has dot products of it: at least 6 outputs, inputs in multiples
 * of 16, no bias where it is NULL. */
#include <stdint.h>

int dot_supported(void);
void dot_linear(const uint16_t *x, const uint16_t *weight, const uint16_t *bias, uint16_t *y, long rows, long outputs,
                long inputs, int threads);
