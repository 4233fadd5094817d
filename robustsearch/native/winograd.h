/* Convolutions 3x3 of stride 1 by Winograd's F(2x2, 3x3) and F(3x3, 2x2) (Lavin & Gray 2016, 1509.09308).
 *
 * 16 products instead of 36, for 4 pixels of a result or for 9 filters: both are polynomials of a patch of 4x4 pixels, and
 * products of their values at 16 points. A pixel that is not finite reaches all of its patch.
 */
#ifndef WINOGRAD_H
#define WINOGRAD_H
#include "sums.h"

enum {
    SMALLEST = 4, /* side of a map from which patches cover it well enough */
    PATCH = 4,    /* side of a patch */
    POINTS = PATCH * PATCH,
    FEW = 12,
    PATCHES = 24,      /* patches at once: while filters stay in a cache, and beyond; multiples of TILE */
    STAYING = 1 << 17, /* filters at a point that stay */
};

/* Packed filters of 3x3 to their values at Winograd's points, [point, out / WIDE, in, WIDE]. */
static void at_points(const float *packed, float *points, size_t in, size_t out) {
    size_t apart = in * out, tap = in * WIDE;
    for (size_t o = 0; o < out; o += WIDE, packed += 9 * tap, points += tap)
        for (size_t k = 0; k < tap; k += BLOCK) {
            V t[PATCH][SIDE];
            for (size_t c = 0; c < SIDE; c++) {
                V a = load(packed + c * tap + k), b = load(packed + (3 + c) * tap + k),
                  d = load(packed + (6 + c) * tap + k);
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

INLINE void differences(V *d) {
    V a = d[0] - d[2], b = d[1] + d[2], c = d[2] - d[1], e = d[1] - d[3];
    d[0] = a, d[1] = b, d[2] = c, d[3] = e;
}

typedef struct {
    size_t image, row, column;
} Place; /* of 2x2 pixels of a result */

static size_t places(size_t images, Map m) { return images * ((m.rows + 1) / 2) * ((m.columns + 1) / 2); }

INLINE Place after(Place p, Map m) {
    p.column += 2;
    if (p.column >= m.columns) p.column = 0, p.row += 2;
    if (p.row >= m.rows) p.row = 0, p.image++;
    return p;
}

/* A patch of which rows and columns up to `bottom` and `right` are inside, and the first ones unless cut off. */
INLINE void corner_to_points(const float *x, Map m, size_t top, size_t bottom, size_t left, size_t right, float *v,
                             size_t apart) {
    for (size_t k = 0; k < m.channels; k += BLOCK) {
        V d[PATCH][PATCH];
        for (size_t c = 0; c < PATCH; c++) {
            V column[PATCH];
            for (size_t r = 0; r < PATCH; r++) {
                int inside = r >= top && r < bottom && c >= left && c < right;
                column[r] = inside ? load(x + r * row_of(m) + c * m.channels + k) : (V){0};
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

/* The PATCH x PATCH pixels around a place to their points. */
INLINE void to_points(const float *x, Map m, Place p, float *v, size_t apart) {
    const float *corner = x + p.image * image_of(m) + p.row * row_of(m) + p.column * m.channels - row_of(m) - m.channels;
    size_t bottom = smaller(PATCH, m.rows + 1 - p.row), right = smaller(PATCH, m.columns + 1 - p.column);
    if (p.row && p.column && bottom == PATCH && right == PATCH) corner_to_points(corner, m, 0, PATCH, 0, PATCH, v, apart);
    else corner_to_points(corner, m, !p.row, bottom, !p.column, right, v, apart);
}

INLINE void pixels_from_points(const float *m, size_t apart, float *y, const float *plus, Map to, size_t down,
                               size_t along) {
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

/* From the points to those pixels of a place that are inside. */
INLINE void from_points(const float *m, size_t apart, float *y, const float *plus, Map to, Place p) {
    size_t at = p.image * image_of(to) + p.row * row_of(to) + p.column * to.channels;
    size_t down = smaller(2, to.rows - p.row), along = smaller(2, to.columns - p.column);
    if (plus) plus += at;
    if (down == 2 && along == 2) pixels_from_points(m, apart, y + at, plus, to, 2, 2);
    else pixels_from_points(m, apart, y + at, plus, to, down, along);
}

static size_t patches(Map from, Map to) { return from.channels * to.channels > STAYING ? PATCHES : FEW; }

INLINE void winograd_of(const float *x, const float *filters, float *y, const float *plus, float *room, size_t images,
                        Map from, Map to) {
    size_t in = from.channels, out = to.channels, chunk = patches(from, to);
    float *v = room, *m = room + POINTS * chunk * in;
    Place place[PATCHES], next = {0, 0, 0};
    for (size_t left = places(images, to), many; left; left -= many) {
        many = smaller(chunk, left);
        for (size_t t = 0; t < many; t++, next = after(next, to)) {
            place[t] = next;
            to_points(x, from, next, v + t * in, chunk * in);
        }
        for (size_t o = 0; o < out; o += WIDE)
            for (size_t e = 0; e < POINTS; e++) {
                Segment all = {v + e * chunk * in, filters + e * in * out + o * in, in};
                float *into = m + e * chunk * out + o;
                if (many % TILE) {
                    tiles(&all, 1, in, into, NULL, out, many);
                    continue;
                }
                for (size_t t = 0; t < many; t += TILE, all.x += TILE * in)
                    tile(&all, 1, in, into + t * out, NULL, out, TILE);
            }
        for (size_t t = 0; t < many; t++) from_points(m + t * out, chunk * out, y, plus, to, place[t]);
    }
}

/* `room` for as many patches of both maps, at all points. */
static void winograd(const float *x, const float *filters, float *y, const float *plus, float *room, size_t images,
                     Map from, Map to) {
    if (from.channels == WIDE && to.channels == WIDE) /* a known number is faster where it is as small */
        winograd_of(x, filters, y, plus, room, images, (Map){from.rows, from.columns, WIDE},
                    (Map){to.rows, to.columns, WIDE});
    else winograd_of(x, filters, y, plus, room, images, from, to);
}

/* ---- gradient in the filters: F(3x3, 2x2) */

INLINE void gradients_to_points(const float *g, Map m, size_t down, size_t along, float *u, size_t apart) {
    for (size_t k = 0; k < m.channels; k += BLOCK) {
        V h[PATCH][2];
        for (size_t c = 0; c < 2; c++) {
            V a = c < along ? load(g + c * m.channels + k) : (V){0};
            V b = c < along && down > 1 ? load(g + row_of(m) + c * m.channels + k) : (V){0};
            h[0][c] = a, h[1][c] = 0.5f * (a + b), h[2][c] = 0.5f * (a - b), h[3][c] = b;
        }
        for (size_t r = 0; r < PATCH; r++) {
            V a = h[r][0], b = h[r][1];
            float *into = u + PATCH * r * apart + k;
            store(into, a);
            store(into + apart, 0.5f * (a + b));
            store(into + 2 * apart, 0.5f * (a - b));
            store(into + 3 * apart, b);
        }
    }
}

/* The 2x2 pixels of a place to their points. */
INLINE void tile_to_points(const float *g, Map m, Place p, float *u, size_t apart) {
    const float *at = g + p.image * image_of(m) + p.row * row_of(m) + p.column * m.channels;
    size_t down = smaller(2, m.rows - p.row), along = smaller(2, m.columns - p.column);
    if (down == 2 && along == 2) gradients_to_points(at, m, 2, 2, u, apart);
    else gradients_to_points(at, m, down, along, u, apart);
}

/* Sums at points [point, out, in] to filters [out, 3, 3, in]. */
static void filters_from_points(const float *sums, float *w, size_t out, size_t in) {
    for (size_t o = 0; o < out; o++)
        for (size_t k = 0; k < in; k += BLOCK) {
            V h[SIDE][PATCH];
            for (size_t c = 0; c < PATCH; c++) {
                V p[PATCH];
                for (size_t r = 0; r < PATCH; r++) p[r] = load(sums + ((PATCH * r + c) * out + o) * in + k);
                h[0][c] = p[0] + p[1] + p[2], h[1][c] = p[1] - p[2], h[2][c] = p[1] + p[2] - p[3];
            }
            for (size_t r = 0; r < SIDE; r++) {
                float *into = w + (o * SIDE * SIDE + SIDE * r) * in + k;
                store(into, h[r][0] + h[r][1] + h[r][2]);
                store(into + in, h[r][1] - h[r][2]);
                store(into + 2 * in, h[r][1] + h[r][2] - h[r][3]);
            }
        }
}

/* `room` for sums and PATCHES patches of both maps, at all points. */
static void winograd_filters(const float *x, const float *g, float *w, float *room, size_t images, Map from, Map to) {
    size_t in = from.channels, out = to.channels;
    float *sums = room, *v = sums + POINTS * in * out, *u = v + POINTS * PATCHES * in;
    Place next = {0, 0, 0};
    memset(sums, 0, sizeof(float) * POINTS * in * out);
    for (size_t left = places(images, to), many; left; left -= many) {
        many = smaller(PATCHES, left);
        for (size_t t = 0; t < many; t++, next = after(next, to)) {
            to_points(x, from, next, v + t * in, PATCHES * in);
            tile_to_points(g, to, next, u + t * out, PATCHES * out);
        }
        for (size_t e = 0; e < POINTS; e++) {
            View a = {v + e * PATCHES * in, in, 0, 0, in}, b = {u + e * PATCHES * out, out, 0, 0, out};
            products(a, b, 1, many, 1, sums + e * in * out, in);
        }
    }
    filters_from_points(sums, w, out, in);
}

#endif
