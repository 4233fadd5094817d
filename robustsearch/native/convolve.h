/* Convolutions of channels-last features: forward, gradient in the input, gradient in the filters.
 *
 * Features are [images, rows, columns, channels]; filters are [channels_out, kernel, kernel, channels_in], as channels-last
 * weights lie in memory. Padding is kernel / 2, so a side of s pixels ends up with (s - 1) / stride + 1. Channels that a
 * result has are multiples of WIDE; only the stem's gradient in the pixels has few.
 *
 * Sums of products, tap by tap   `direct`. TILE pixels of WIDE channels stay in registers, as many sums as the latency
 *     of the processor asks for. Pixels of a tile have the same taps inside the image, so that padding costs nothing:
 *     neighbours of a row where a row has enough, else the same pixel of several images. A map of 2x2 has 4 of 9 taps.
 * Winograd's F(2x2, 3x3)         `winograd` (Lavin & Gray 2016, 1509.09308): 16 products for 4 pixels instead of 36.
 *
 * What a result sums, and in which order, depends neither on the number of images nor on its place among them.
 */
#ifndef CONVOLVE_H
#define CONVOLVE_H
#include "vectors.h"

enum {
    PARTS = 2,              /* vectors of a tile */
    WIDE = PARTS * BLOCK,   /* channels of a tile */
    TILE = 6,               /* pixels of a tile */
    ACROSS = 4,             /* pixels of a row that are worth a tile */
    SIDE = 3,               /* of the largest kernel */
    SMALLEST = 4,           /* side of a map from which Winograd's patches cover it well enough */
    PATCH = 4,              /* side of his patches */
    POINTS = PATCH * PATCH,
    FEW = 12, PATCHES = 24, /* patches at once: while filters stay in a cache, and beyond; multiples of TILE */
    STAYING = 1 << 17,      /* filters at a point that stay */
    NEAR = 1 << 14,         /* bytes of features that stay in the first cache beside others */
};

typedef struct { size_t rows, columns, channels; } Map;
typedef struct { size_t count, index[SIDE], tap[SIDE]; } Reach;    /* what an output sees along one axis */
typedef struct { size_t first, apart, count; Reach reach; } Run;   /* outputs along an axis that see the same taps */
typedef struct { const float *x, *w; size_t length; } Segment;     /* inputs side by side, and their filters */
typedef struct { Map from, to; size_t kernel, stride; } Layer;

INLINE size_t row_of(Map m) { return m.columns * m.channels; }
INLINE size_t image_of(Map m) { return m.rows * row_of(m); }
INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static Layer layer(size_t rows, size_t columns, size_t in, size_t out, size_t kernel, size_t stride) {
    return (Layer){{rows, columns, in}, {(rows - 1) / stride + 1, (columns - 1) / stride + 1, out}, kernel, stride};
}

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
            for (size_t o = 0; o < out; o++, packed += WIDE) memcpy(packed, w + (o * taps + t) * in + k, sizeof(float[WIDE]));
}

/* Packed filters of 3x3 to their values at Winograd's points, [point, out / WIDE, in, WIDE]. */
static void at_points(const float *packed, float *points, size_t in, size_t out) {
    size_t apart = in * out, tap = in * WIDE;
    for (size_t o = 0; o < out; o += WIDE, packed += 9 * tap, points += tap)
        for (size_t k = 0; k < tap; k += BLOCK) {
            V t[PATCH][SIDE];
            for (size_t c = 0; c < SIDE; c++) {
                V a = load(packed + c * tap + k), b = load(packed + (3 + c) * tap + k), d = load(packed + (6 + c) * tap + k);
                t[0][c] = a, t[1][c] = 0.5f * (a + b + d), t[2][c] = 0.5f * (a - b + d), t[3][c] = d;
            }
            for (size_t r = 0; r < PATCH; r++) {
                float *to = points + PATCH * r * apart + k;
                V *h = t[r];
                store(to, h[0]);
                store(to + apart, 0.5f * (h[0] + h[1] + h[2]));
                store(to + 2 * apart, 0.5f * (h[0] - h[1] + h[2]));
                store(to + 3 * apart, h[2]);
            }
        }
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

/* ---- sums of products */

INLINE void tile(const Segment *segments, size_t count, size_t x_apart, float *y, const float *plus, size_t y_apart, size_t size) {
    V sum[TILE][PARTS];
    for (size_t t = 0; t < size; t++)
        for (size_t i = 0; i < PARTS; i++) sum[t][i] = (V){0};
    for (const Segment *s = segments; s < segments + count; s++) {
        const float *x = s->x, *w = s->w;
        for (const float *end = x + s->length; x < end; x++, w += WIDE) {
            V filters[PARTS];
            for (size_t i = 0; i < PARTS; i++) filters[i] = load(w + i * BLOCK);
            for (size_t t = 0; t < size; t++) {
                V value = broadcast(x[t * x_apart]);
                for (size_t i = 0; i < PARTS; i++) sum[t][i] += value * filters[i];
            }
        }
    }
    for (size_t t = 0; t < size; t++)
        for (size_t i = 0; i < PARTS; i++) {
            size_t at = t * y_apart + i * BLOCK;
            store(y + at, plus ? sum[t][i] + load(plus + at) : sum[t][i]);
        }
}

/* `many` outputs that lie evenly apart, in tiles of even size; moves the segments along. */
static void tiles(Segment *segments, size_t count, size_t x_apart, float *y, const float *plus, size_t y_apart, size_t many) {
    size_t pieces = (many + TILE - 1) / TILE;
    for (size_t i = 0, done = 0; i < pieces; i++) {
        size_t size = (i + 1) * many / pieces - done;
        switch (size) {
#define OF(n) case n: tile(segments, count, x_apart, y, plus, y_apart, n); break;
            OF(1) OF(2) OF(3) OF(4) OF(5) OF(6)
#undef OF
        }
        y += size * y_apart;
        if (plus) plus += size * y_apart;
        for (Segment *s = segments; s < segments + count; s++) s->x += size * x_apart;
        done += size;
    }
}

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
        while (k < count && (found[k].reach.count != here.count || memcmp(found[k].reach.tap, here.tap, sizeof here.tap))) k++;
        if (k == count) found[count++] = (Run){i, 0, 0, here};
        if (found[k].count == 1) found[k].apart = i - found[k].first;
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
            if (count && last->x + last->length == at && last->w + last->length * WIDE == filters) last->length += from.channels;
            else found[count++] = (Segment){at, filters, from.channels};
        }
    return count;
}

static void direct(const float *x, const float *packed, float *y, const float *plus, size_t images, Map from, Map to,
                   size_t kernel, size_t stride, int backward) {
    Run columns[2 * SIDE];
    size_t kinds = runs(columns, to.columns, from.columns, kernel, stride, backward), widest = 0;
    for (size_t k = 0; k < kinds; k++) widest = columns[k].count > widest ? columns[k].count : widest;
    size_t group = widest < ACROSS ? images : TILE;
    for (size_t first = 0; first < images; first += group)
        for (size_t o = 0; o < to.channels; o += WIDE)
            for (size_t r = 0; r < to.rows; r++) {
                Reach rows = reach(r, from.rows, kernel, stride, backward);
                const float *filters = packed + o * kernel * kernel * from.channels;
                for (size_t k = 0; k < kinds; k++) {
                    Run run = columns[k];
                    size_t many = smaller(group, images - first), x_apart = 0, y_apart = run.apart * to.channels;
                    if (run.count > 1) {
                        Reach next = reach(run.first + run.apart, from.columns, kernel, stride, backward);
                        x_apart = (next.index[0] - run.reach.index[0]) * from.channels;
                    }
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

/* ---- Winograd */

INLINE void differences(V *d) {
    V a = d[0] - d[2], b = d[1] + d[2], c = d[2] - d[1], e = d[1] - d[3];
    d[0] = a, d[1] = b, d[2] = c, d[3] = e;
}

/* A patch of PATCH x PATCH pixels, of which rows and columns from `first` to `end` are inside, to its points. */
INLINE void to_points(const float *x, Map from, size_t top, size_t bottom, size_t left, size_t right, float *v, size_t apart) {
    for (size_t k = 0; k < from.channels; k += BLOCK) {
        V d[PATCH][PATCH];
        for (size_t c = 0; c < PATCH; c++) {
            V column[PATCH];
            for (size_t r = 0; r < PATCH; r++) {
                int inside = r >= top && r < bottom && c >= left && c < right;
                column[r] = inside ? load(x + r * row_of(from) + c * from.channels + k) : (V){0};
            }
            differences(column);
            for (size_t r = 0; r < PATCH; r++) d[r][c] = column[r];
        }
        for (size_t r = 0; r < PATCH; r++) {
            differences(d[r]);
            for (size_t c = 0; c < PATCH; c++) store(v + (PATCH * r + c) * apart + k, d[r][c]);
        }
    }
}

/* From its points to `down` x `along` pixels. */
INLINE void from_points(const float *m, size_t apart, float *y, const float *plus, Map to, size_t down, size_t along) {
    for (size_t k = 0; k < to.channels; k += BLOCK) {
        V h[2][PATCH];
        for (size_t c = 0; c < PATCH; c++) {
            V p[PATCH];
            for (size_t r = 0; r < PATCH; r++) p[r] = load(m + (PATCH * r + c) * apart + k);
            h[0][c] = p[0] + p[1] + p[2];
            h[1][c] = p[1] - p[2] - p[3];
        }
        for (size_t r = 0; r < down; r++) {
            V pixels[2] = {h[r][0] + h[r][1] + h[r][2], h[r][1] - h[r][2] - h[r][3]};
            for (size_t c = 0; c < along; c++) {
                size_t at = r * row_of(to) + c * to.channels + k;
                store(y + at, plus ? pixels[c] + load(plus + at) : pixels[c]);
            }
        }
    }
}

typedef struct { size_t image, row, column; } Place;

static size_t patches(Map from, Map to) { return from.channels * to.channels > STAYING ? PATCHES : FEW; }

/* `room` for as many patches of both maps, at all points. */
static void winograd(const float *x, const float *filters, float *y, const float *plus, float *room, size_t images, Map from, Map to) {
    size_t in = from.channels, out = to.channels, chunk = patches(from, to);
    float *v = room, *m = room + POINTS * chunk * in;
    size_t left = images * ((to.rows + 1) / 2) * ((to.columns + 1) / 2);
    Place place[PATCHES], next = {0, 0, 0};
    for (size_t many; left; left -= many) {
        many = smaller(chunk, left);
        for (size_t t = 0; t < many; t++) {
            Place p = place[t] = next;
            const float *corner = x + next.image * image_of(from) + next.row * row_of(from) + next.column * in - row_of(from) - in;
            size_t bottom = smaller(PATCH, from.rows + 1 - p.row), right = smaller(PATCH, from.columns + 1 - p.column);
            if (p.row && p.column && bottom == PATCH && right == PATCH)
                to_points(corner, from, 0, PATCH, 0, PATCH, v + t * in, chunk * in);
            else
                to_points(corner, from, !p.row, bottom, !p.column, right, v + t * in, chunk * in);
            next.column += 2;
            if (next.column >= to.columns) next.column = 0, next.row += 2;
            if (next.row >= to.rows) next.row = 0, next.image++;
        }
        for (size_t o = 0; o < out; o += WIDE)
            for (size_t e = 0; e < POINTS; e++) {
                Segment all = {v + e * chunk * in, filters + e * in * out + o * in, in};
                float *into = m + e * chunk * out + o;
                if (many % TILE) {
                    tiles(&all, 1, in, into, NULL, out, many);
                    continue;
                }
                for (size_t t = 0; t < many; t += TILE, all.x += TILE * in) tile(&all, 1, in, into + t * out, NULL, out, TILE);
            }
        for (size_t t = 0; t < many; t++) {
            Place p = place[t];
            size_t at = p.image * image_of(to) + p.row * row_of(to) + p.column * out;
            size_t down = smaller(2, to.rows - p.row), along = smaller(2, to.columns - p.column);
            const float *more = plus ? plus + at : NULL;
            if (down == 2 && along == 2) from_points(m + t * out, chunk * out, y + at, more, to, 2, 2);
            else from_points(m + t * out, chunk * out, y + at, more, to, down, along);
        }
    }
}

/* ---- either */

/* Floats that `convolution` works in. */
static size_t working(Layer l) {
    return by_winograd(l) ? POINTS * patches(l.from, l.to) * (l.from.channels + l.to.channels) : 0;
}

/* y = the convolution of x, plus `plus` unless NULL; backward from the gradient of its result to that in its input. */
static void convolution(const float *x, const float *filters, float *y, const float *plus, float *room, size_t images, Layer l,
                        int backward) {
    Map from = backward ? l.to : l.from, to = backward ? l.from : l.to;
    if (by_winograd(l)) winograd(x, filters, y, plus, room, images, from, to);
    else direct(x, filters, y, plus, images, from, to, l.kernel, l.stride, backward);
}

/* Gradient in few channels of an input: each is a sum over channels of the result. */
static void few_back(const float *g, const float *w, float *into, float *room, size_t images, Layer l) {
    Map from = l.from, to = l.to;
    size_t taps = l.kernel * l.kernel, in = from.channels;
    Reach columns[from.columns];
    for (size_t c = 0; c < from.columns; c++) columns[c] = reach(c, to.columns, l.kernel, l.stride, 1);
    for (size_t o = 0; o < to.channels; o++)
        for (size_t t = 0; t < taps; t++)
            for (size_t k = 0; k < in; k++) room[(k * taps + taps - 1 - t) * to.channels + o] = w[(o * taps + t) * in + k];
    for (size_t n = 0; n < images; n++, g += image_of(to))
        for (size_t r = 0; r < from.rows; r++) {
            Reach rows = reach(r, to.rows, l.kernel, l.stride, 1);
            for (size_t c = 0; c < from.columns; c++)
                for (size_t k = 0; k < in; k++) {
                    V sum[2] = {{0}, {0}};
                    for (size_t i = 0; i < rows.count; i++)
                        for (size_t j = 0; j < columns[c].count; j++) {
                            const float *at = g + rows.index[i] * row_of(to) + columns[c].index[j] * to.channels;
                            const float *filter = room + (k * taps + rows.tap[i] * l.kernel + columns[c].tap[j]) * to.channels;
                            for (size_t o = 0; o < to.channels; o += 2 * BLOCK) {
                                sum[0] += load(at + o) * load(filter + o);
                                if (o + BLOCK < to.channels) sum[1] += load(at + o + BLOCK) * load(filter + o + BLOCK);
                            }
                        }
                    *into++ = (float)total(sum[0] + sum[1]);
                }
        }
}

/* ---- gradient in the filters */

/* sum[t] += b[t] a over `runs` runs of `many` pixels, for WIDE channels of a and `size` of b. */
INLINE void outer(const float *a, size_t a_apart, size_t a_run, const float *b, size_t b_apart, size_t b_run, size_t runs,
                  size_t many, float *sums, size_t apart, size_t size) {
    V sum[TILE][PARTS];
    for (size_t t = 0; t < size; t++)
        for (size_t i = 0; i < PARTS; i++) sum[t][i] = load(sums + t * apart + i * BLOCK);
    for (size_t r = 0; r < runs; r++) {
        const float *wide = a + r * a_run, *single = b + r * b_run;
        for (size_t n = 0; n < many; n++, wide += a_apart, single += b_apart) {
            V channels[PARTS];
            for (size_t i = 0; i < PARTS; i++) channels[i] = load(wide + i * BLOCK);
            for (size_t t = 0; t < size; t++) {
                V value = broadcast(single[t]);
                for (size_t i = 0; i < PARTS; i++) sum[t][i] += value * channels[i];
            }
        }
    }
    for (size_t t = 0; t < size; t++)
        for (size_t i = 0; i < PARTS; i++) store(sums + t * apart + i * BLOCK, sum[t][i]);
}

static void outers(const float *a, size_t a_apart, size_t a_run, const float *b, size_t b_apart, size_t b_run, size_t runs,
                   size_t many, float *sums, size_t apart, size_t size) {
    switch (size) {
#define OF(n) case n: outer(a, a_apart, a_run, b, b_apart, b_run, runs, many, sums, apart, n); break;
        OF(1) OF(2) OF(3) OF(4) OF(5) OF(6)
#undef OF
    }
}

/* Moves `first` and `end` of outputs to those that see a tap. */
INLINE void seeing(size_t *first, size_t *end, size_t inputs, size_t tap, size_t kernel, size_t stride) {
    size_t pad = kernel / 2;
    while (*first < *end && *first * stride + tap < pad) ++*first;
    while (*first < *end && (*end - 1) * stride + tap >= inputs + pad) --*end;
}

typedef struct { const float *at; size_t pixel, row, image, channels; } View;

/* Pixels that see one tap: WIDE channels of `a` with each of `b`, into sums [channels of b, ..., channels of a]. */
static void products(View a, View b, size_t height, size_t width, size_t many, float *sums, size_t apart) {
    for (size_t o = 0, size; o < b.channels; o += size) {
        size_t left = b.channels - o;
        size = left >= 2 * TILE || left <= TILE ? smaller(left, TILE) : 4; /* 16 = 6 + 4 + 6 */
        for (size_t k = 0; k < a.channels; k += WIDE) {
            float *into = sums + o * apart + k;
            if (width >= TILE)
                for (size_t i = 0; i < many; i++)
                    outers(a.at + i * a.image + k, a.pixel, a.row, b.at + i * b.image + o, b.pixel, b.row, height, width, into, apart, size);
            else
                for (size_t r = 0; r < height; r++)
                    outers(a.at + r * a.row + k, a.image, a.pixel, b.at + r * b.row + o, b.image, b.pixel, width, many, into, apart, size);
        }
    }
}

/* In chunks of images, or of rows of one, that stay near; `room` for the filters. */
static void filters_gradient(const float *x, const float *g, float *w, float *room, size_t images, Layer l) {
    Map from = l.from, to = l.to;
    size_t taps = l.kernel * l.kernel, pad = l.kernel / 2, in = from.channels, out = to.channels, few = in % WIDE;
    size_t bytes = sizeof(float) * (image_of(from) > image_of(to) ? image_of(from) : image_of(to));
    size_t group = bytes < NEAR ? NEAR / bytes : 1, band = bytes < NEAR ? to.rows : (NEAR * to.rows + bytes - 1) / bytes;
    float *sums = few ? room : w; /* [taps, in, out] instead of [out, taps, in] where only `out` is wide */
    memset(sums, 0, sizeof(float) * out * taps * in);
    for (size_t n = 0; n < images; n += group)
        for (size_t top = 0; top < to.rows; top += band)
            for (size_t tap = 0; tap < taps; tap++) {
                size_t r = top, bottom = smaller(top + band, to.rows), c = 0, right = to.columns, many = smaller(group, images - n);
                seeing(&r, &bottom, from.rows, tap / l.kernel, l.kernel, l.stride);
                seeing(&c, &right, from.columns, tap % l.kernel, l.kernel, l.stride);
                if (r == bottom || c == right) continue;
                size_t row = r * l.stride + tap / l.kernel - pad, column = c * l.stride + tap % l.kernel - pad;
                View inputs = {x + n * image_of(from) + row * row_of(from) + column * in, l.stride * in, l.stride * row_of(from), image_of(from), in};
                View outputs = {g + n * image_of(to) + r * row_of(to) + c * out, out, row_of(to), image_of(to), out};
                if (few) products(outputs, inputs, bottom - r, right - c, many, sums + tap * in * out, out);
                else products(inputs, outputs, bottom - r, right - c, many, sums + tap * in, taps * in);
            }
    if (!few) return;
    for (size_t o = 0; o < out; o++)
        for (size_t t = 0; t < taps * in; t++) w[o * taps * in + t] = sums[t * out + o];
}

#endif
