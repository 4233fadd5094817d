/* Activations of channels-last features, forward and backward, in one pass over memory each.
 *
 * Features are [pixels, channels] of all images, `channels` a multiple of BLOCK; a vector holds whole blocks of U units,
 * where U = 1 stands for ReLU. With gate q = softmax(h) over the units of a block and a = g * h for the gradient g of y:
 *
 *   normalised   h = scale * x + shift, a batch norm of running statistics;  y = factor * q * h, or factor * max(h, 0)
 *                dJ/dx = scale * factor * q * (g + a - sum_v q_v a_v)
 *   relaxed      xi = softmax((h + G) / tau), G Gumbel;  y = xi * h, and the KL of q to the uniform gate
 *                dJ/dh = xi * (g + (a - sum_v xi_v a_v) / tau) + k q * (h - sum_v q_v h_v)   for the gradient k of the KL
 *
 * In two units the difference of the Gumbels is logit(r), r uniform: a logarithm less.
 */
#include <math.h>

#include "vectors.h"

enum { GROUP = 16 }; /* sums of exponentials, at most 8 each, whose product has one logarithm: 2^48 at most */

INLINE V load(const float *p) { return *(const V *)p; }
INLINE void store(float *p, V x) { *(V *)p = x; }

INLINE V group_sum(V x, int units) {
    for (int k = 1; k < units; k *= 2) x += partner(x, k);
    return x;
}

/* exp(z - max z) over the units: 1 for the largest. */
INLINE V exponentials(V z, int units) { return exponential(z - group_max(z, units)); }

INLINE V softmax(V z, int units) {
    V e = exponentials(z, units);
    return e / group_sum(e, units);
}

INLINE double total(V x) {
    double sum = 0;
    for (int i = 0; i < BLOCK; i++) sum += x[i];
    return sum;
}

/* ---- batch norm of running statistics, then the mean gate or ReLU */

INLINE V gate(V h, int units) { return units == 1 ? choose(h > 0.0f, broadcast(1.0f), broadcast(0.0f)) : softmax(h, units); }

INLINE void forward(const float *x, const float *scale, const float *shift, const float *factor, float *y, size_t pixels,
                    size_t channels, int units) {
    for (size_t p = 0; p < pixels; p++, x += channels, y += channels)
        for (size_t c = 0; c < channels; c += BLOCK) {
            V h = load(x + c) * load(scale + c) + load(shift + c);
            V out = units == 1 ? choose(h < 0.0f, broadcast(0.0f), h) : h * gate(h, units); /* NaN stays NaN */
            store(y + c, factor ? out * load(factor + c) : out);
        }
}

INLINE void backward(const float *g, const float *x, const float *scale, const float *shift, const float *factor, float *into,
                     size_t pixels, size_t channels, int units) {
    for (size_t p = 0; p < pixels; p++, g += channels, x += channels, into += channels)
        for (size_t c = 0; c < channels; c += BLOCK) {
            V h = load(x + c) * load(scale + c) + load(shift + c), q = gate(h, units), along = load(g + c);
            if (factor) along *= load(factor + c);
            V a = along * h;
            V out = units == 1 ? q * along : q * (along + a - group_sum(q * a, units));
            store(into + c, out * load(scale + c));
        }
}

#define UNITS(f, ...)                                \
    switch (units) {                                 \
    case 1: f(__VA_ARGS__, 1); break;                \
    case 2: f(__VA_ARGS__, 2); break;                \
    case 4: f(__VA_ARGS__, 4); break;                \
    default: f(__VA_ARGS__, 8);                      \
    }

/* Writes scale and shift [2, channels] for `normalised_back`; `factor` [channels] or NULL. */
void normalised(const float *x, const float *weight, const float *bias, const float *mean, const float *variance,
                double eps, const float *factor, float *scale, float *y, size_t pixels, size_t channels, int units) {
    float *shift = scale + channels;
    for (size_t c = 0; c < channels; c++) {
        scale[c] = weight[c] / sqrtf(variance[c] + (float)eps);
        shift[c] = bias[c] - mean[c] * scale[c];
    }
    UNITS(forward, x, scale, shift, factor, y, pixels, channels)
}

void normalised_back(const float *g, const float *x, const float *scale, const float *factor, float *into, size_t pixels,
                     size_t channels, int units) {
    UNITS(backward, g, x, scale, scale + channels, factor, into, pixels, channels)
}

/* ---- the gate of training */

/* Gumbel noise for each unit; for two, logistic noise of opposite signs instead. */
INLINE V noise(Stream *s, int units) {
    V r = uniform(s);
    if (units > 2) return -logarithm(-logarithm(r));
    V l = logarithm(choose((lane & 1) != 0, 1.0f - partner(r, 1), r)); /* log r, log(1 - r) */
    return 0.5f * (l - partner(l, 1));
}

INLINE double relax(const float *h, float *y, float *share, size_t vectors, float inverse, Stream *s, int units) {
    double kl = 0;
    size_t i = 0;
    Stream local = *s;
    while (i < vectors) {
        size_t end = i + GROUP < vectors ? i + GROUP : vectors;
        V products = broadcast(1.0f), sums = broadcast(0.0f);
        for (; i < end; i++) {
            V x = load(h + i * BLOCK), xi = softmax((x + noise(&local, units)) * inverse, units);
            store(share + i * BLOCK, xi);
            store(y + i * BLOCK, xi * x);
            /* sum_u q_u log q_u = sum_u q_u z_u - log sum_u e^z_u, for z = h - max h. */
            V z = x - group_max(x, units), e = exponential(z), whole = group_sum(e, units);
            sums += e * larger(z, broadcast(-87.0f)) / whole;
            products *= whole;
        }
        kl += total(sums);
        for (int k = 0; k < BLOCK; k += units) kl -= log((double)products[k]);
    }
    *s = local;
    return kl + (double)(vectors * (BLOCK / (size_t)units)) * log(units);
}

INLINE void relax_back(const float *g, const float *h, const float *share, float *into, size_t vectors, float inverse,
                       float kl, int units) {
    for (size_t i = 0; i < vectors; i++) {
        V x = load(h + i * BLOCK), xi = load(share + i * BLOCK), along = load(g + i * BLOCK), a = along * x;
        V out = xi * (along + (a - group_sum(xi * a, units)) * inverse);
        V q = softmax(x, units);
        store(into + i * BLOCK, out + kl * q * (x - group_sum(q * x, units)));
    }
}

/* Returns the KL summed over all blocks, nats; `vectors` of BLOCK features each. */
double relaxed(const float *h, float *y, float *share, size_t vectors, double temperature, uint64_t seed, int units) {
    Stream s = stream(seed, 0);
    float inverse = (float)(1 / temperature);
    switch (units) {
    case 2: return relax(h, y, share, vectors, inverse, &s, 2);
    case 4: return relax(h, y, share, vectors, inverse, &s, 4);
    default: return relax(h, y, share, vectors, inverse, &s, 8);
    }
}

void relaxed_back(const float *g, const float *h, const float *share, float *into, size_t vectors, double temperature,
                  double kl, int units) {
    float inverse = (float)(1 / temperature);
    switch (units) {
    case 2: relax_back(g, h, share, into, vectors, inverse, (float)kl, 2); break;
    case 4: relax_back(g, h, share, into, vectors, inverse, (float)kl, 4); break;
    default: relax_back(g, h, share, into, vectors, inverse, (float)kl, 8);
    }
}
