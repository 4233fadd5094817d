/* Convolutions of channels-last features: forward, gradient in the input, gradient in the filters.
 *
 * Features are [images, rows, columns, channels]; filters are [channels_out, kernel, kernel, channels_in], as channels-last
 * weights lie in memory. Padding is kernel / 2, so a side of s pixels ends up with (s - 1) / stride + 1. Channels that a
 * result has are multiples of WIDE; only the stem's gradient in the pixels has few.
 *
 * What a result sums, and in which order, depends neither on the number of images nor on its place among them.
 */
#ifndef CONVOLVE_H
#define CONVOLVE_H
#include "direct.h"
#include "winograd.h"

/* ---- filters: packed as [out / WIDE, tap, in, WIDE], and backward with `in` and `out`, first and last tap exchanged */

INLINE void transpose(V *square) {
    for (int s = 1; s < BLOCK; s *= 2) {
        M high = (lane & s) != 0;
        M first = (~high & lane) | (high & (lane - s + BLOCK)), second = (~high & (lane + s)) | (high & (lane + BLOCK));
        for (int i = 0; i < BLOCK; i++)
            if (!(i & s)) {
                V a = square[i], b = square[i + s];
                square[i] = __builtin_shuffle(a, b, first);
                square[i + s] = __builtin_shuffle(a, b, second);
            }
    }
}

static void pack(const float *w, float *packed, size_t out, size_t in, size_t taps) {
    for (size_t o = 0; o < out; o += BLOCK)
        for (size_t t = 0; t < taps; t++) {
            float *to = packed + (o / WIDE * taps + t) * in * WIDE + o % WIDE;
            size_t k = 0;
            for (; k + BLOCK <= in; k += BLOCK) {
                V square[BLOCK];
                for (size_t i = 0; i < BLOCK; i++) square[i] = load(w + ((o + i) * taps + t) * in + k);
                transpose(square);
                for (size_t i = 0; i < BLOCK; i++) store(to + (k + i) * WIDE, square[i]);
            }
            for (; k < in; k++)
                for (size_t i = 0; i < BLOCK; i++) to[k * WIDE + i] = w[((o + i) * taps + t) * in + k];
        }
}

static void pack_back(const float *w, float *packed, size_t out, size_t in, size_t taps) {
    for (size_t k = 0; k < in; k += WIDE)
        for (size_t t = taps; t-- > 0;)
            for (size_t o = 0; o < out; o++, packed += WIDE)
                memcpy(packed, w + (o * taps + t) * in + k, sizeof(float[WIDE]));
}

static int by_winograd(Layer l) {
    return l.kernel == 3 && l.stride == 1 && l.from.channels % WIDE == 0 && smaller(l.to.rows, l.to.columns) >= SMALLEST;
}

/* Floats of `prepare`d filters, in which it works too. */
static size_t prepared(Layer l) {
    return l.from.channels * l.to.channels * (l.kernel * l.kernel + (by_winograd(l) ? POINTS : 0));
}

/* Returns the filters as `convolution` wants them; backward for its gradient in the input. */
static const float *prepare(const float *w, float *room, Layer l, int backward) {
    size_t taps = l.kernel * l.kernel, in = l.from.channels, out = l.to.channels;
    if (backward) pack_back(w, room, out, in, taps);
    else pack(w, room, out, in, taps);
    if (!by_winograd(l)) return room;
    float *points = room + taps * in * out;
    if (backward) at_points(room, points, out, in);
    else at_points(room, points, in, out);
    return points;
}

/* Floats that `convolution` works in. */
static size_t working(Layer l) {
    return by_winograd(l) ? POINTS * patches(l.from, l.to) * (l.from.channels + l.to.channels) : 0;
}

/* y = the convolution of x, plus `plus` unless NULL; backward from the gradient of its result to that in its input. */
static void convolution(const float *x, const float *filters, float *y, const float *plus, float *room, size_t images,
                        Layer l, int backward) {
    Map from = backward ? l.to : l.from, to = backward ? l.from : l.to;
    if (by_winograd(l)) winograd(x, filters, y, plus, room, images, from, to);
    else direct(x, filters, y, plus, images, from, to, l.kernel, l.stride, backward);
}

static size_t filters_room(Layer l) {
    size_t in = l.from.channels, out = l.to.channels;
    return by_winograd(l) ? POINTS * (in * out + PATCHES * (in + out)) : in % WIDE ? l.kernel * l.kernel * in * out : 0;
}

static void filters_gradient(const float *x, const float *g, float *w, float *room, size_t images, Layer l) {
    if (by_winograd(l)) winograd_filters(x, g, w, room, images, l.from, l.to);
    else direct_filters(x, g, w, room, images, l);
}

#endif
