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
 * Two units take half the work (`Pairs`): only the difference of their logits counts, two vectors hold 8 of those, and the
 * difference of the Gumbels is logit(r), r uniform.
 */
#ifndef ACTIVATE_H
#define ACTIVATE_H
#include <math.h>

#include "vectors.h"

enum {
    GROUP = 16,  /* sums of exponentials, at most 8 each, whose product has one logarithm: 2^48 at most */
};

INLINE V softmax(V z, int units) {
    V e = exponential(z - group_max(z, units));
    return e / group_sum(e, units);
}

/* ---- two units: first and second units of the blocks of two vectors, and the gates of both */

typedef struct { V first, second; } Pairs;

static const M firsts = {0, 2, 8, 10, 4, 6, 12, 14}, seconds = {1, 3, 9, 11, 5, 7, 13, 15};
static const M lower = {0, 8, 1, 9, 4, 12, 5, 13}, upper = {2, 10, 3, 11, 6, 14, 7, 15};

INLINE Pairs apart(V a, V b) { return (Pairs){__builtin_shuffle(a, b, firsts), __builtin_shuffle(a, b, seconds)}; }
INLINE Pairs load_pairs(const float *p) { return apart(load(p), load(p + BLOCK)); }
INLINE void store_pairs(float *p, Pairs x) {
    store(p, __builtin_shuffle(x.first, x.second, lower));
    store(p + BLOCK, __builtin_shuffle(x.first, x.second, upper));
}

/* Softmax of (margin, 0). */
INLINE Pairs shares(V margin) {
    M up = margin >= 0.0f;
    V e = exponential(choose(up, -margin, margin)), ahead = 1.0f / (1.0f + e), rest = e * ahead;
    return (Pairs){choose(up, ahead, rest), choose(up, rest, ahead)};
}

INLINE Pairs pair_gate(Pairs h) { return shares(h.first - h.second); }

/* Gradient in h for the gradient g of q * h, and `inverse` temperature. */
INLINE Pairs pair_back(Pairs g, Pairs h, Pairs q, float inverse) {
    V along = (g.first * h.first - g.second * h.second) * q.first * q.second * inverse;
    return (Pairs){g.first * q.first + along, g.second * q.second - along};
}

/* ---- batch norm of running statistics, then the mean gate or ReLU */

INLINE V gate(V h, int units) { return units == 1 ? choose(h > 0.0f, broadcast(1.0f), broadcast(0.0f)) : softmax(h, units); }

INLINE void forward(const float *x, const float *scale, const float *shift, const float *factor, float *y, size_t pixels,
                    size_t channels, int units) {
    for (size_t p = 0; p < pixels; p++, x += channels, y += channels)
        for (size_t c = 0; c < channels; c += BLOCK) {
            V h = load(x + c) * load(scale + c) + load(shift + c);
            if (units == 2 && c + BLOCK < channels) {
                size_t d = c + BLOCK;
                Pairs both = apart(h, load(x + d) * load(scale + d) + load(shift + d)), q = pair_gate(both);
                both = (Pairs){both.first * q.first, both.second * q.second};
                if (factor) {
                    Pairs f = load_pairs(factor + c);
                    both = (Pairs){both.first * f.first, both.second * f.second};
                }
                store_pairs(y + c, both);
                c = d;
                continue;
            }
            V out = units == 1 ? choose(h < 0.0f, broadcast(0.0f), h) : h * gate(h, units); /* NaN stays NaN */
            store(y + c, factor ? out * load(factor + c) : out);
        }
}

/* The gradient, plus `plus` unless NULL; `into` may be g. */
INLINE void backward(const float *g, const float *x, const float *scale, const float *shift, const float *factor,
                     const float *plus, float *into, size_t pixels, size_t channels, int units) {
    for (size_t p = 0; p < pixels; p++, g += channels, x += channels, into += channels, plus = plus ? plus + channels : NULL)
        for (size_t c = 0; c < channels; c += BLOCK) {
            V h = load(x + c) * load(scale + c) + load(shift + c), along = load(g + c);
            if (factor) along *= load(factor + c);
            if (units == 2 && c + BLOCK < channels) {
                size_t d = c + BLOCK;
                V next = load(g + d);
                if (factor) next *= load(factor + d);
                Pairs both = apart(h, load(x + d) * load(scale + d) + load(shift + d)), s = load_pairs(scale + c);
                Pairs out = pair_back(apart(along, next), both, pair_gate(both), 1.0f);
                out = (Pairs){out.first * s.first, out.second * s.second};
                if (plus) {
                    Pairs more = load_pairs(plus + c);
                    out = (Pairs){out.first + more.first, out.second + more.second};
                }
                store_pairs(into + c, out);
                c = d;
                continue;
            }
            V q = gate(h, units);
            V a = along * h;
            V out = units == 1 ? q * along : q * (along + a - group_sum(q * a, units));
            out *= load(scale + c);
            store(into + c, plus ? out + load(plus + c) : out);
        }
}

#define UNITS(f, ...)                                \
    switch (units) {                                 \
    case 1: f(__VA_ARGS__, 1); break;                \
    case 2: f(__VA_ARGS__, 2); break;                \
    case 4: f(__VA_ARGS__, 4); break;                \
    default: f(__VA_ARGS__, 8);                      \
    }

static void activate(const float *x, const float *scale, const float *factor, float *y, size_t pixels, size_t channels,
                     int units) {
    UNITS(forward, x, scale, scale + channels, factor, y, pixels, channels)
}

static void activate_back(const float *g, const float *x, const float *scale, const float *factor, const float *plus,
                          float *into, size_t pixels, size_t channels, int units) {
    UNITS(backward, g, x, scale, scale + channels, factor, plus, into, pixels, channels)
}

/* ---- the gate of training */

/* Gumbel noise for each unit from uniform draws; for two, logistic noise of opposite signs instead. */
INLINE V gumbel(V r, int units) {
    if (units > 2) return -logarithm(-logarithm(r));
    V l = logarithm(choose((lane & 1) != 0, 1.0f - partner(r, 1), r)); /* log r, log(1 - r) */
    return 0.5f * (l - partner(l, 1));
}

/* Sums of `relax` over vectors: KL = sums - the logarithms of all products. Several vectors at once, or pairs of vectors,
   as each has to wait for what it has just computed. */
typedef struct { V sums, products; } Divergence;

/* KL of a pair: log 2 - log(1 + e) - |m| e / (1 + e), for e = e^-|m|. */
INLINE void relax_pairs(const float *h, float *y, float *share, float inverse, Stream *s, Divergence *kl, int many) {
    Pairs x[ABREAST], xi[ABREAST];
    V margin[ABREAST], draw[ABREAST], e[ABREAST];
    for (int j = 0; j < many; j++) {
        x[j] = load_pairs(h + 2 * j * BLOCK);
        margin[j] = x[j].first - x[j].second;
        draw[j] = uniform(s);
    }
    for (int j = 0; j < many; j++) draw[j] = logarithm(draw[j] / (1.0f - draw[j]));
    for (int j = 0; j < many; j++) xi[j] = shares((margin[j] + draw[j]) * inverse);
    for (int j = 0; j < many; j++) {
        store_pairs(share + 2 * j * BLOCK, xi[j]);
        store_pairs(y + 2 * j * BLOCK, (Pairs){xi[j].first * x[j].first, xi[j].second * x[j].second});
        margin[j] = larger(choose(margin[j] >= 0.0f, -margin[j], margin[j]), broadcast(-87.0f)); /* -|m| */
    }
    for (int j = 0; j < many; j++) e[j] = exponential(margin[j]);
    for (int j = 0; j < many; j++) {
        kl->sums += margin[j] * e[j] / (1.0f + e[j]);
        kl->products *= 1.0f + e[j];
    }
}

/* sum_u q_u log q_u = sum_u q_u z_u - log sum_u e^z_u, for z = h - max h. */
INLINE void relax_vectors(const float *h, float *y, float *share, float inverse, Stream *s, Divergence *kl, int many,
                          int units) {
    V x[ABREAST], xi[ABREAST], e[ABREAST], whole[ABREAST];
    for (int j = 0; j < many; j++) x[j] = load(h + j * BLOCK), xi[j] = uniform(s);
    for (int j = 0; j < many; j++) xi[j] = gumbel(xi[j], units);
    for (int j = 0; j < many; j++) xi[j] = (x[j] + xi[j]) * inverse;
    for (int j = 0; j < many; j++) xi[j] = softmax(xi[j], units);
    for (int j = 0; j < many; j++) {
        store(share + j * BLOCK, xi[j]);
        store(y + j * BLOCK, xi[j] * x[j]);
        x[j] = x[j] - group_max(x[j], units);
    }
    for (int j = 0; j < many; j++) e[j] = exponential(x[j]);
    for (int j = 0; j < many; j++) whole[j] = group_sum(e[j], units);
    for (int j = 0; j < many; j++) {
        kl->sums += e[j] * larger(x[j], broadcast(-87.0f)) / whole[j];
        kl->products *= whole[j];
    }
}

INLINE double relax(const float *h, float *y, float *share, size_t vectors, float inverse, Stream *s, int units) {
    double kl = 0;
    Stream local = *s;
    for (size_t i = 0, end; i < vectors; i = end) {
        end = i + GROUP < vectors ? i + GROUP : vectors;
        Divergence all = {broadcast(0.0f), broadcast(1.0f)}, pairs = all;
        size_t at = i * BLOCK;
        for (; units == 2 && i + 2 * ABREAST <= end; i += 2 * ABREAST, at = i * BLOCK)
            relax_pairs(h + at, y + at, share + at, inverse, &local, &pairs, ABREAST);
        for (; units > 2 && i + ABREAST <= end; i += ABREAST, at = i * BLOCK)
            relax_vectors(h + at, y + at, share + at, inverse, &local, &all, ABREAST, units);
        for (; i < end; i++, at = i * BLOCK) relax_vectors(h + at, y + at, share + at, inverse, &local, &all, 1, units);
        kl += total(all.sums + pairs.sums - logarithm(pairs.products)) - total(logarithm(all.products)) / units;
    }
    *s = local;
    return kl + (double)(vectors * (BLOCK / (size_t)units)) * log(units);
}

INLINE void relax_back(const float *g, const float *h, const float *share, float *into, size_t vectors, float inverse,
                       float kl, int units) {
    for (size_t i = 0; i < vectors; i++) {
        if (units == 2 && i + 1 < vectors) {
            Pairs x = load_pairs(h + i * BLOCK), q = pair_gate(x);
            Pairs out = pair_back(load_pairs(g + i * BLOCK), x, load_pairs(share + i * BLOCK), inverse);
            V slope = kl * q.first * q.second * (x.first - x.second);
            store_pairs(into + i * BLOCK, (Pairs){out.first + slope, out.second - slope});
            i++;
            continue;
        }
        V x = load(h + i * BLOCK), xi = load(share + i * BLOCK), along = load(g + i * BLOCK), a = along * x;
        V out = xi * (along + (a - group_sum(xi * a, units)) * inverse);
        V q = softmax(x, units);
        store(into + i * BLOCK, out + kl * q * (x - group_sum(q * x, units)));
    }
}

#endif
