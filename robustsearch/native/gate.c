/* Winner-takes-all gates as operators of onnxruntime: one pass over memory in its blocked layout.
 *
 * A tensor [N, C, H, W] lies in memory as [N, C / BLOCK, H * W, BLOCK], so that a vector holds BLOCK adjacent channels of
 * one pixel, and with them whole blocks of U = 2, 4 or 8 units. C is padded with zeros, which stay zeros here.
 *
 *   Gate(h)                      h * gate
 *   Gate(h, weight, bias)        the same for h * weight + bias, vectors [C]
 *   Repeat(h)                    the batch `times` times
 *
 * Gates: softmax (`winner` = 0), one winner (`winner` = 1): argmax of h (`scale` = 0) or of h + scale * Gumbel, whose law is
 * softmax(h / scale). A block takes one uniform r for that: the winner is the first unit u with r S < e_0 + ... + e_u, for
 * e = exp(h / scale) and its sum S; of two, unit 0 wins iff r (e_0 + e_1) < e_0. Ties of argmax go to the first unit.
 *
 * What is declared here of onnxruntime's C interface is what version 8 of it has; its makers only append to it.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "vectors.h"

/* Mask of the first unit with the largest key. */
INLINE M winners(V key, int units) {
    M won = (M)(key == key);
    for (int k = 1; k < units; k *= 2) {
        V other = partner(key, k);
        won &= (key > other) | ((key == other) & ((lane & k) == 0));
        key = larger(key, other);
    }
    return won;
}

/* A uniform for each block of several pixels: as many as a block has units take theirs from one draw. */
INLINE void draw(V *r, Stream *s, int units, int many) {
    V drawn = broadcast(0.0f);
    for (int j = 0; j < many; j++) {
        if (j % units == 0) drawn = uniform(s);
        r[j] = __builtin_shuffle(drawn, (lane & -units) + j % units);
    }
}

/* Pixels side by side, as each has to wait for what it has just computed. */
INLINE void pairs_sampled(const V *h, const V *r, V *y, float inverse, int many) {
    V z[ABREAST], e[ABREAST];
    for (int j = 0; j < many; j++) {
        z[j] = __builtin_shuffle(h[j] - partner(h[j], 1), even) * inverse;
        e[j] = choose(z[j] >= 0.0f, -z[j], z[j]);
    }
    for (int j = 0; j < many; j++) e[j] = exponential(e[j]);
    for (int j = 0; j < many; j++) {
        M first = r[j] * (1.0f + e[j]) < choose(z[j] >= 0.0f, broadcast(1.0f), e[j]);
        y[j] = (V)((M)h[j] & (first ^ ((lane & 1) != 0)));
    }
}

INLINE void sampled(const V *h, const V *r, V *y, float inverse, int units, int many) {
    V e[ABREAST];
    M unit = lane & (units - 1);
    for (int j = 0; j < many; j++) e[j] = (h[j] - group_max(h[j], units)) * inverse;
    for (int j = 0; j < many; j++) e[j] = exponential(e[j]);
    for (int j = 0; j < many; j++) {
        V sums = e[j];
        for (int k = 1; k < units; k *= 2) sums += (V)((M)__builtin_shuffle(sums, lane - k) & (unit >= k));
        M from = r[j] * __builtin_shuffle(sums, lane | (units - 1)) < sums; /* units from the winner on */
        for (int k = 1; units > 4 && k < units; k *= 2) /* though sums of many, each in an order of its own, may fall */
            from |= __builtin_shuffle(from, lane - k) & (unit >= k);
        y[j] = (V)((M)h[j] & from & ~(__builtin_shuffle(from, lane - 1) & (unit != 0)));
    }
}

INLINE V pair_mean(V h) {
    V z = h - partner(h, 1);
    M up = z >= 0.0f;
    V e = exponential(choose(up, -z, z));
    return h * choose(up, broadcast(1.0f), e) / (1.0f + e);
}

INLINE V unsampled(V h, int units, int winner) {
    if (winner) return (V)((M)h & winners(h, units));
    if (units == 2) return pair_mean(h);
    V e = exponential(h - group_max(h, units));
    return h * e / group_sum(e, units);
}

/* `many` pixels, at most ABREAST. */
INLINE void some(const float *x, float *y, V weight, V bias, int norm, Stream *s, int units, int winner, int draws,
                 float inverse, int many) {
    V h[ABREAST], r[ABREAST], out[ABREAST];
    for (int j = 0; j < many; j++) h[j] = norm ? load(x + j * BLOCK) * weight + bias : load(x + j * BLOCK);
    if (draws) {
        draw(r, s, units, many);
        if (units == 2) pairs_sampled(h, r, out, inverse, many);
        else sampled(h, r, out, inverse, units, many);
    } else
        for (int j = 0; j < many; j++) out[j] = unsampled(h[j], units, winner);
    for (int j = 0; j < many; j++) store(y + j * BLOCK, out[j]);
}

INLINE void pass(const float *x, float *y, size_t pixels, V weight, V bias, int norm, Stream *s, int units, int winner,
                 int draws, float inverse) {
    size_t i = 0;
    Stream local = *s;
    for (; i + ABREAST <= pixels; i += ABREAST)
        some(x + i * BLOCK, y + i * BLOCK, weight, bias, norm, &local, units, winner, draws, inverse, ABREAST);
    for (; i < pixels; i++) some(x + i * BLOCK, y + i * BLOCK, weight, bias, norm, &local, units, winner, draws, inverse, 1);
    *s = local;
}

typedef struct {
    int64_t units, winner, seed;
    float scale;
    atomic_ulong calls;
} Gate;

/* Images [n, planes, pixels, BLOCK]; weight and bias are NULL or [planes, BLOCK]. */
static void run(Gate *gate, const float *x, float *y, size_t n, size_t planes, size_t pixels, const float *weight,
                const float *bias) {
    Stream s = stream((uint64_t)gate->seed, atomic_fetch_add(&gate->calls, 1));
    int draws = gate->winner && gate->scale > 0.0f;
    float inverse = draws ? 1.0f / gate->scale : 0.0f;
    for (size_t i = 0; i < n; i++)
        for (size_t p = 0; p < planes; p++, x += pixels * BLOCK, y += pixels * BLOCK) {
            V w = weight ? *(const V *)(weight + p * BLOCK) : broadcast(1.0f);
            V b = weight ? *(const V *)(bias + p * BLOCK) : broadcast(0.0f);
#define CASE(U, WINNER, DRAWS)                                                                   \
    if (gate->units == U && gate->winner == WINNER && draws == DRAWS) {                          \
        if (weight) pass(x, y, pixels, w, b, 1, &s, U, WINNER, DRAWS, inverse);                  \
        else pass(x, y, pixels, w, b, 0, &s, U, WINNER, DRAWS, inverse);                         \
        continue;                                                                                \
    }
#define UNITS(U) CASE(U, 0, 0) CASE(U, 1, 0) CASE(U, 1, 1)
            UNITS(2) UNITS(4) UNITS(8)
        }
}

/* onnxruntime's C interface: a table of functions, of which these are the places. */
typedef void *(*Function)(void);
typedef struct { const Function *(*get_api)(uint32_t version); } ApiBase;
enum {
    CREATE_DOMAIN = 26, ADD_TO_DOMAIN = 27, ADD_DOMAIN = 28, TENSOR_DATA = 51, DIMENSION_COUNT = 61, DIMENSIONS = 62,
    SHAPE_INFO = 65, ATTRIBUTE_FLOAT = 85, ATTRIBUTE_INT = 86, INPUT = 90, OUTPUT = 91, RELEASE_SHAPE_INFO = 99
};
enum { VERSION = 8, FLOAT = 1 };
static const Function *api;
#define CALL(place, types, ...) ((void *(*) types)api[place])(__VA_ARGS__)

typedef struct Operator Operator;
struct Operator {
    uint32_t version;
    void *(*create)(const Operator *, const Function *, const void *);
    const char *(*name)(const Operator *);
    const char *(*provider)(const Operator *);
    int (*input_type)(const Operator *, size_t);
    size_t (*inputs)(const Operator *);
    int (*output_type)(const Operator *, size_t);
    size_t (*outputs)(const Operator *);
    void (*compute)(void *, void *);
    void (*destroy)(void *);
    int (*input_kind)(const Operator *, size_t);
    int (*output_kind)(const Operator *, size_t);
    const char *called; /* ours, from here on */
    size_t takes;
};

typedef struct { float *data; int64_t dims[4]; size_t count; } Tensor;

static Tensor input(const void *context, size_t index) {
    void *value, *info;
    Tensor tensor;
    CALL(INPUT, (const void *, size_t, void **), context, index, &value);
    CALL(TENSOR_DATA, (void *, void **), value, (void **)&tensor.data);
    CALL(SHAPE_INFO, (const void *, void **), value, &info);
    CALL(DIMENSION_COUNT, (const void *, size_t *), info, &tensor.count);
    CALL(DIMENSIONS, (const void *, int64_t *, size_t), info, tensor.dims, tensor.count > 4 ? 4 : tensor.count);
    CALL(RELEASE_SHAPE_INFO, (void *), info);
    return tensor;
}

static float *output(void *context, const int64_t *dims, size_t count) {
    void *value;
    float *data;
    CALL(OUTPUT, (void *, size_t, const int64_t *, size_t, void **), context, 0, dims, count, &value);
    CALL(TENSOR_DATA, (void *, void **), value, (void **)&data);
    return data;
}

static void gate_compute(void *kernel, void *context, int norm) {
    Tensor x = input(context, 0);
    const float *weight = norm ? input(context, 1).data : NULL, *bias = norm ? input(context, 2).data : NULL;
    float *y = output(context, x.dims, x.count);
    run(kernel, x.data, y, (size_t)x.dims[0], (size_t)x.dims[1] / BLOCK, (size_t)(x.dims[2] * x.dims[3]), weight, bias);
}

static void plain_gate(void *kernel, void *context) { gate_compute(kernel, context, 0); }
static void norm_gate(void *kernel, void *context) { gate_compute(kernel, context, 1); }

static void repeat(void *kernel, void *context) {
    Tensor x = input(context, 0);
    size_t times = (size_t)((Gate *)kernel)->units, size = sizeof(float);
    for (size_t i = 0; i < x.count; i++) size *= (size_t)x.dims[i];
    x.dims[0] *= (int64_t)times;
    char *y = (char *)output(context, x.dims, x.count);
    for (size_t i = 0; i < times; i++) memcpy(y + i * size, x.data, size);
}

static void *create(const Operator *op, const Function *table, const void *info) {
    Gate *gate = calloc(1, sizeof *gate);
    (void)op, (void)table;
    CALL(ATTRIBUTE_INT, (const void *, const char *, int64_t *), info, "units", &gate->units);
    CALL(ATTRIBUTE_INT, (const void *, const char *, int64_t *), info, "winner", &gate->winner);
    CALL(ATTRIBUTE_INT, (const void *, const char *, int64_t *), info, "seed", &gate->seed);
    CALL(ATTRIBUTE_FLOAT, (const void *, const char *, float *), info, "scale", &gate->scale);
    return gate;
}

static const char *name(const Operator *op) { return op->called; }
static const char *provider(const Operator *op) { return (void)op, NULL; }
static int type(const Operator *op, size_t index) { return (void)op, (void)index, FLOAT; }
static int required(const Operator *op, size_t index) { return (void)op, (void)index, 0; }
static size_t inputs(const Operator *op) { return op->takes; }
static size_t one(const Operator *op) { return (void)op, (size_t)1; }

#define OPERATOR(compute, called, takes) \
    {VERSION, create, name, provider, type, inputs, type, one, compute, free, required, required, called, takes}
static const Operator operators[] = {
    OPERATOR(plain_gate, "Gate", 1), OPERATOR(norm_gate, "NormGate", 3), OPERATOR(repeat, "Repeat", 1)};

void *RegisterCustomOps(void *options, const ApiBase *base) {
    void *domain, *status;
    api = base->get_api(VERSION);
    if ((status = CALL(CREATE_DOMAIN, (const char *, void **), "robustsearch", &domain))) return status;
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if ((status = CALL(ADD_TO_DOMAIN, (void *, const Operator *), domain, &operators[i]))) return status;
    return CALL(ADD_DOMAIN, (void *, void *), options, domain);
}
