/* Layers of a WideResNet on a CPU, under autograd (`models.fused`): what of activate.h and convolve.h is called.
 *
 * Features are channels-last, [images, rows, columns, channels]. Sizes are of a layer's input.
 */
#include "activate.h"
#include "convolve.h"

enum { SECOND_CACHE = 1 << 16 }; /* bytes of one map of a block that stay there beside the others */

/* ---- activations: pixels of all images, `channels` a multiple of BLOCK */

/* A batch norm of running statistics as scale and shift [2, channels]. */
void affine(const float *weight, const float *bias, const float *mean, const float *variance, double eps, float *scale,
            size_t channels) {
    for (size_t c = 0; c < channels; c++) {
        scale[c] = weight[c] / sqrtf(variance[c] + (float)eps);
        scale[channels + c] = bias[c] - mean[c] * scale[c];
    }
}

/* `factor` [channels], or NULL. */
void normalised(const float *x, const float *scale, const float *factor, float *y, size_t pixels, size_t channels,
                int units) {
    activate(x, scale, factor, y, pixels, channels, units);
}

void normalised_back(const float *g, const float *x, const float *scale, const float *factor, float *into, size_t pixels,
                     size_t channels, int units) {
    activate_back(g, x, scale, factor, NULL, into, pixels, channels, units);
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

/* ---- convolutions: `room` has as many floats as the function of that name says */

size_t convolution_room(size_t rows, size_t columns, size_t in, size_t out, size_t kernel, size_t stride) {
    Layer l = layer(rows, columns, in, out, kernel, stride);
    return greater(prepared(l) + working(l), filters_room(l));
}

void convolve(const float *x, const float *w, float *y, float *room, size_t images, size_t rows, size_t columns, size_t in,
              size_t out, size_t kernel, size_t stride) {
    Layer l = layer(rows, columns, in, out, kernel, stride);
    convolution(x, prepare(w, room, l, 0), y, NULL, room + prepared(l), images, l, 0);
}

/* Gradient in x from that in y. */
void convolve_back(const float *g, const float *w, float *into, float *room, size_t images, size_t rows, size_t columns,
                   size_t in, size_t out, size_t kernel, size_t stride) {
    Layer l = layer(rows, columns, in, out, kernel, stride);
    if (in % WIDE) few_back(g, w, into, room, images, l);
    else convolution(g, prepare(w, room, l, 1), into, NULL, room + prepared(l), images, l, 1);
}

/* Gradient in w from that in y. */
void convolve_filters(const float *x, const float *g, float *into, float *room, size_t images, size_t rows, size_t columns,
                      size_t in, size_t out, size_t kernel, size_t stride) {
    filters_gradient(x, g, into, room, images, layer(rows, columns, in, out, kernel, stride));
}

/* ---- a whole block: batch norm, activation, 3x3 convolution, and these again; plus x, or a 1x1 convolution of what was
 *      first activated. A few images at a time, so that their features stay near. */

typedef struct {
    Layer first, second, shortcut;
    size_t images;  /* at a time */
    size_t largest; /* floats of a map of those */
    float *filters, *work, *features;
} Block;

static Block block_of(size_t images, size_t rows, size_t columns, size_t in, size_t out, size_t stride, float *room) {
    Block b = {.first = layer(rows, columns, in, out, 3, stride), .shortcut = layer(rows, columns, in, out, 1, stride)};
    Map middle = b.first.to;
    b.second = layer(middle.rows, middle.columns, out, out, 3, 1);
    size_t map = greater(image_of(b.first.from), image_of(middle));
    size_t near = SECOND_CACHE / sizeof(float) / map;
    b.images = near < 1 ? 1 : smaller(near, images);
    b.largest = b.images * map;
    b.filters = room;
    b.work = b.filters + prepared(b.first) + prepared(b.second) + prepared(b.shortcut);
    b.features = b.work + greater(working(b.first), working(b.second));
    return b;
}

size_t block_room(size_t images, size_t rows, size_t columns, size_t in, size_t out, size_t stride) {
    Block b = block_of(images, rows, columns, in, out, stride, NULL);
    return (size_t)(b.features - b.filters) + 2 * b.largest;
}

typedef struct {
    const float *first, *second, *shortcut;
} Filters;

static Filters prepare_all(Block *b, const float *w1, const float *w2, const float *ws, int backward) {
    float *second = b->filters + prepared(b->first), *shortcut = second + prepared(b->second);
    return (Filters){prepare(w1, b->filters, b->first, backward), prepare(w2, second, b->second, backward),
                     ws ? prepare(ws, shortcut, b->shortcut, backward) : NULL};
}

/* Images from `first` on: how many, where their features begin, and how many pixels they have. */
typedef struct {
    size_t many, from, to, pixels, pixels_out;
} Part;

static Part part_of(const Block *b, size_t first, size_t images) {
    Map from = b->first.from, to = b->first.to;
    size_t many = smaller(b->images, images - first);
    return (Part){many, first * image_of(from), first * image_of(to), many * from.rows * from.columns,
                  many * to.rows * to.columns};
}

/* `middle` is between the convolutions; `ws` the filters of the shortcut, or NULL for the identity. */
void block(const float *x, const float *scale1, const float *factor1, const float *w1, const float *scale2,
           const float *factor2, const float *w2, const float *ws, float *middle, float *y, float *room, size_t images,
           size_t rows, size_t columns, size_t in, size_t out, size_t stride, int units) {
    Block b = block_of(images, rows, columns, in, out, stride, room);
    Filters w = prepare_all(&b, w1, w2, ws, 0);
    for (size_t n = 0; n < images; n += b.images) {
        Part p = part_of(&b, n, images);
        activate(x + p.from, scale1, factor1, b.features, p.pixels, in, units);
        convolution(b.features, w.first, middle + p.to, NULL, b.work, p.many, b.first, 0);
        if (ws) convolution(b.features, w.shortcut, y + p.to, NULL, b.work, p.many, b.shortcut, 0);
        activate(middle + p.to, scale2, factor2, b.features, p.pixels_out, out, units);
        convolution(b.features, w.second, y + p.to, ws ? y + p.to : x + p.from, b.work, p.many, b.second, 0);
    }
}

/* Gradient in x from that in y. */
void block_back(const float *g, const float *x, const float *middle, const float *scale1, const float *factor1,
                const float *w1, const float *scale2, const float *factor2, const float *w2, const float *ws, float *into,
                float *room, size_t images, size_t rows, size_t columns, size_t in, size_t out, size_t stride, int units) {
    Block b = block_of(images, rows, columns, in, out, stride, room);
    Filters w = prepare_all(&b, w1, w2, ws, 1);
    float *second_g = b.features, *first_g = b.features + b.largest; /* gradients in what the convolutions were given */
    for (size_t n = 0; n < images; n += b.images) {
        Part p = part_of(&b, n, images);
        convolution(g + p.to, w.second, second_g, NULL, b.work, p.many, b.second, 1);
        activate_back(second_g, middle + p.to, scale2, factor2, NULL, second_g, p.pixels_out, out, units);
        if (ws) convolution(g + p.to, w.shortcut, first_g, NULL, b.work, p.many, b.shortcut, 1);
        convolution(second_g, w.first, first_g, ws ? first_g : NULL, b.work, p.many, b.first, 1);
        activate_back(first_g, x + p.from, scale1, factor1, ws ? NULL : g + p.to, into + p.from, p.pixels, in, units);
    }
}
