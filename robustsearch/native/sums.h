/* Maps, and sums of products of channels in registers, which is what all convolutions here are made of.
 *
 * A tile is PARTS vectors of channels for TILE pixels: as many sums as the latency of the processor asks for.
 */
#ifndef SUMS_H
#define SUMS_H
#include "vectors.h"

enum {
    PARTS = 2,            /* vectors of a tile */
    WIDE = PARTS * BLOCK, /* channels of a tile */
    TILE = 6,             /* pixels of a tile */
    SIDE = 3,             /* of the largest kernel */
};

typedef struct {
    size_t rows, columns, channels;
} Map;
typedef struct {
    Map from, to;
    size_t kernel, stride;
} Layer;

INLINE size_t row_of(Map m) { return m.columns * m.channels; }
INLINE size_t image_of(Map m) { return m.rows * row_of(m); }
INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
INLINE size_t greater(size_t a, size_t b) { return a > b ? a : b; }

static Layer layer(size_t rows, size_t columns, size_t in, size_t out, size_t kernel, size_t stride) {
    return (Layer){{rows, columns, in}, {(rows - 1) / stride + 1, (columns - 1) / stride + 1, out}, kernel, stride};
}

/* ---- pixels of a result: sums over channels of what is convolved */

typedef struct {
    const float *x, *w;
    size_t length;
} Segment; /* inputs side by side, and filters [length, WIDE] for them */

INLINE void tile(const Segment *segments, size_t count, size_t x_apart, float *y, const float *plus, size_t y_apart,
                 size_t size) {
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
static void tiles(Segment *segments, size_t count, size_t x_apart, float *y, const float *plus, size_t y_apart,
                  size_t many) {
    size_t pieces = (many + TILE - 1) / TILE;
    for (size_t i = 0, done = 0; i < pieces; i++) {
        size_t size = (i + 1) * many / pieces - done;
        switch (size) {
#define OF(n)                                                                                                              \
    case n: tile(segments, count, x_apart, y, plus, y_apart, n); break;
            OF(1) OF(2) OF(3) OF(4) OF(5) OF(6)
#undef OF
        }
        y += size * y_apart;
        if (plus) plus += size * y_apart;
        for (Segment *s = segments; s < segments + count; s++) s->x += size * x_apart;
        done += size;
    }
}

/* ---- filters: sums over pixels */

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
#define OF(n)                                                                                                              \
    case n: outer(a, a_apart, a_run, b, b_apart, b_run, runs, many, sums, apart, n); break;
        OF(1) OF(2) OF(3) OF(4) OF(5) OF(6)
#undef OF
    }
}

typedef struct {
    const float *at;
    size_t pixel, row, image, channels;
} View;

/* Pixels that see one tap: WIDE channels of `a` with each of `b`, into sums [channels of b, ..., channels of a]. */
static void products(View a, View b, size_t height, size_t width, size_t many, float *sums, size_t apart) {
    for (size_t o = 0, size; o < b.channels; o += size) {
        size_t left = b.channels - o;
        size = left >= 2 * TILE || left <= TILE ? smaller(left, TILE) : 4; /* 16 = 6 + 4 + 6 */
        for (size_t k = 0; k < a.channels; k += WIDE) {
            float *into = sums + o * apart + k;
            if (width >= TILE)
                for (size_t i = 0; i < many; i++)
                    outers(a.at + i * a.image + k, a.pixel, a.row, b.at + i * b.image + o, b.pixel, b.row, height, width,
                           into, apart, size);
            else
                for (size_t r = 0; r < height; r++)
                    outers(a.at + r * a.row + k, a.image, a.pixel, b.at + r * b.row + o, b.image, b.pixel, width, many,
                           into, apart, size);
        }
    }
}

#endif
