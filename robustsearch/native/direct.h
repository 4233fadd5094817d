/* Convolutions as they are defined, tap by tap.
 *
 * Pixels of a tile have the same taps inside the image, so that padding costs nothing: neighbours of a row where a row has
 * enough of them, else the same pixel of several images. A map of 2x2 has 4 taps of 9 inside.
 */
#ifndef DIRECT_H
#define DIRECT_H
#include "sums.h"

enum {
    ACROSS = 4,            /* pixels of a row that are worth a tile */
    FIRST_CACHE = 1 << 14, /* bytes of features that stay there beside others */
    STRIP = 64,            /* columns at once, in the gradient in few channels */
};

typedef struct {
    size_t count, index[SIDE], tap[SIDE];
} Reach; /* what an output sees along one axis */
typedef struct {
    size_t first, apart, x_apart, count;
    Reach reach;
} Run; /* outputs along an axis that see the same taps */

/* Taps in the order of their inputs. Backward, inputs are those of the gradient, and an output sees a tap of every
   `stride`. */
static Reach reach(size_t output, size_t inputs, size_t kernel, size_t stride, int backward) {
    Reach found = {0};
    for (size_t tap = 0; tap < kernel; tap++) {
        size_t at = (backward ? output : output * stride) + tap, before = backward ? kernel - 1 - kernel / 2 : kernel / 2;
        if (at < before || (backward && (at - before) % stride)) continue;
        at = backward ? (at - before) / stride : at - before;
        if (at >= inputs) continue;
        found.index[found.count] = at;
        found.tap[found.count++] = tap;
    }
    return found;
}

static size_t runs(Run *found, size_t outputs, size_t inputs, size_t kernel, size_t stride, int backward) {
    size_t count = 0;
    for (size_t i = 0; i < outputs; i++) {
        Reach here = reach(i, inputs, kernel, stride, backward);
        size_t k = 0;
        while (k < count && (found[k].reach.count != here.count || memcmp(found[k].reach.tap, here.tap, sizeof here.tap)))
            k++;
        if (k == count) found[count++] = (Run){i, 0, 0, 0, here};
        if (found[k].count == 1) {
            found[k].apart = i - found[k].first;
            found[k].x_apart = here.index[0] - found[k].reach.index[0];
        }
        found[k].count++;
    }
    return count;
}

static size_t segments(Segment *found, const float *x, const float *w, Reach rows, Reach columns, Map from, size_t kernel) {
    size_t count = 0;
    for (size_t r = 0; r < rows.count; r++)
        for (size_t c = 0; c < columns.count; c++) {
            const float *at = x + rows.index[r] * row_of(from) + columns.index[c] * from.channels;
            const float *filters = w + (rows.tap[r] * kernel + columns.tap[c]) * from.channels * WIDE;
            Segment *last = found + count - 1;
            if (count && last->x + last->length == at && last->w + last->length * WIDE == filters)
                last->length += from.channels;
            else found[count++] = (Segment){at, filters, from.channels};
        }
    return count;
}

static void direct(const float *x, const float *packed, float *y, const float *plus, size_t images, Map from, Map to,
                   size_t kernel, size_t stride, int backward) {
    Run columns[2 * SIDE];
    size_t kinds = runs(columns, to.columns, from.columns, kernel, stride, backward), widest = 0;
    for (size_t k = 0; k < kinds; k++) widest = greater(widest, columns[k].count);
    size_t group = widest < ACROSS ? images : TILE;
    for (size_t first = 0; first < images; first += group)
        for (size_t o = 0; o < to.channels; o += WIDE)
            for (size_t r = 0; r < to.rows; r++) {
                Reach rows = reach(r, from.rows, kernel, stride, backward);
                const float *filters = packed + o * kernel * kernel * from.channels;
                for (size_t k = 0; k < kinds; k++) {
                    Run run = columns[k];
                    size_t many = smaller(group, images - first);
                    size_t x_apart = run.x_apart * from.channels, y_apart = run.apart * to.channels;
                    int across = run.count < ACROSS; /* images, pixel by pixel, and not pixels, image by image */
                    for (size_t i = 0; i < (across ? run.count : many); i++) {
                        const float *in = x + first * image_of(from) + i * (across ? x_apart : image_of(from));
                        size_t out = first * image_of(to) + r * row_of(to) + run.first * to.channels + o +
                                     i * (across ? y_apart : image_of(to));
                        Segment parts[SIDE * SIDE];
                        size_t count = segments(parts, in, filters, rows, run.reach, from, kernel);
                        tiles(parts, count, across ? image_of(from) : x_apart, y + out, plus ? plus + out : NULL,
                              across ? image_of(to) : y_apart, across ? many : run.count);
                    }
                }
            }
}

/* Gradient in few channels of an input: each is a sum over channels of the result. `filters` [in, taps turned about, out]. */
INLINE float few_at(const float *g, const float *filters, Reach rows, Reach columns, Map to, size_t kernel) {
    V sum[PARTS] = {{0}};
    for (size_t i = 0; i < rows.count; i++)
        for (size_t j = 0; j < columns.count; j++) {
            const float *at = g + rows.index[i] * row_of(to) + columns.index[j] * to.channels;
            const float *w = filters + (rows.tap[i] * kernel + columns.tap[j]) * to.channels;
            for (size_t o = 0; o < to.channels; o += WIDE)
                for (size_t p = 0; p < PARTS; p++) sum[p] += load(at + o + p * BLOCK) * load(w + o + p * BLOCK);
        }
    V all = sum[0];
    for (size_t p = 1; p < PARTS; p++) all += sum[p];
    return (float)total(all);
}

static void few_back(const float *g, const float *w, float *into, float *room, size_t images, Layer l) {
    Map from = l.from, to = l.to;
    size_t taps = l.kernel * l.kernel, in = from.channels;
    for (size_t o = 0; o < to.channels; o++)
        for (size_t t = 0; t < taps; t++)
            for (size_t k = 0; k < in; k++) room[(k * taps + taps - 1 - t) * to.channels + o] = w[(o * taps + t) * in + k];
    for (size_t first = 0, many; first < from.columns; first += many) {
        Reach columns[STRIP];
        many = smaller(STRIP, from.columns - first);
        for (size_t c = 0; c < many; c++) columns[c] = reach(first + c, to.columns, l.kernel, l.stride, 1);
        for (size_t n = 0; n < images; n++)
            for (size_t r = 0; r < from.rows; r++) {
                Reach rows = reach(r, to.rows, l.kernel, l.stride, 1);
                float *at = into + n * image_of(from) + r * row_of(from) + first * in;
                for (size_t c = 0; c < many; c++)
                    for (size_t k = 0; k < in; k++)
                        *at++ = few_at(g + n * image_of(to), room + k * taps * to.channels, rows, columns[c], to, l.kernel);
            }
    }
}

/* ---- gradient in the filters */

/* Moves `first` and `end` of outputs to those that see a tap. */
INLINE void seeing(size_t *first, size_t *end, size_t inputs, size_t tap, size_t kernel, size_t stride) {
    size_t pad = kernel / 2;
    while (*first < *end && *first * stride + tap < pad) ++*first;
    while (*first < *end && (*end - 1) * stride + tap >= inputs + pad) --*end;
}

/* In chunks of images, or of rows of one, that stay near; `room` for the filters where `in` is not wide. */
static void direct_filters(const float *x, const float *g, float *w, float *room, size_t images, Layer l) {
    Map from = l.from, to = l.to;
    size_t taps = l.kernel * l.kernel, pad = l.kernel / 2, in = from.channels, out = to.channels, few = in % WIDE;
    size_t bytes = sizeof(float) * greater(image_of(from), image_of(to));
    size_t group = bytes < FIRST_CACHE ? FIRST_CACHE / bytes : 1, band = bytes < FIRST_CACHE ? to.rows : (FIRST_CACHE * to.rows + bytes - 1) / bytes;
    float *sums = few ? room : w; /* [taps, in, out] instead of [out, taps, in] where only `out` is wide */
    memset(sums, 0, sizeof(float) * out * taps * in);
    for (size_t n = 0; n < images; n += group)
        for (size_t top = 0; top < to.rows; top += band)
            for (size_t tap = 0; tap < taps; tap++) {
                size_t r = top, bottom = smaller(top + band, to.rows), c = 0, right = to.columns,
                       many = smaller(group, images - n);
                seeing(&r, &bottom, from.rows, tap / l.kernel, l.kernel, l.stride);
                seeing(&c, &right, from.columns, tap % l.kernel, l.kernel, l.stride);
                if (r == bottom || c == right) continue;
                size_t row = r * l.stride + tap / l.kernel - pad, column = c * l.stride + tap % l.kernel - pad;
                View inputs = {x + n * image_of(from) + row * row_of(from) + column * in, l.stride * in,
                               l.stride * row_of(from), image_of(from), in};
                View outputs = {g + n * image_of(to) + r * row_of(to) + c * out, out, row_of(to), image_of(to), out};
                if (few) products(outputs, inputs, bottom - r, right - c, many, sums + tap * in * out, out);
                else products(inputs, outputs, bottom - r, right - c, many, sums + tap * in, taps * in);
            }
    if (!few) return;
    for (size_t o = 0; o < out; o++)
        for (size_t t = 0; t < taps * in; t++) w[o * taps * in + t] = sums[t * out + o];
}

#endif
