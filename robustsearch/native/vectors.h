/* Vectors of BLOCK floats: 8 or 16 adjacent channels, and with them whole blocks of U = 1, 2, 4 or 8 units.
 *
 * Draws: xoshiro128+ (Blackman & Vigna 2021, 1805.01407), one stream for each lane, seeded from (seed, number of the call)
 * by SplitMix64.
 */
#ifndef VECTORS_H
#define VECTORS_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef float V __attribute__((vector_size(4 * BLOCK), aligned(4)));
typedef int32_t M __attribute__((vector_size(4 * BLOCK), aligned(4)));
typedef uint32_t B __attribute__((vector_size(4 * BLOCK), aligned(4)));

#if BLOCK == 8
#define EACH(f) {f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)}
#else
#define EACH(f) {f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)}
#endif
#define LANE(i) i
#define EVEN(i) ((i) & ~1)
static const M lane = EACH(LANE), even = EACH(EVEN);

enum { ABREAST = 4 }; /* vectors at once, where each has to wait for what it has just computed */

#define INLINE static inline __attribute__((always_inline))

INLINE V load(const float *p) { return *(const V *)p; }
INLINE void store(float *p, V x) { *(V *)p = x; }
INLINE V broadcast(float x) { return x - (V){0}; }
INLINE V choose(M mask, V yes, V no) { return (V)((mask & (M)yes) | (~mask & (M)no)); }
INLINE V partner(V x, int distance) { return __builtin_shuffle(x, lane ^ distance); }
INLINE V larger(V a, V b) { return choose(a > b, a, b); }
INLINE double total(V x) {
    double sum = 0;
    for (int i = 0; i < BLOCK; i++) sum += x[i];
    return sum;
}

/* e^x for x <= 0, relative error below 2e-7; e^-87 below that (Cephes' expf). */
INLINE V exponential(V x) {
    x = larger(x, broadcast(-87.0f));
    V shifted = x * 1.44269504088896341f + 12582912.0f; /* x / log 2 rounded, in the last bits */
    V n = shifted - 12582912.0f;
    V r = x - n * 0.693359375f + n * 2.12194440e-4f;
    V p = broadcast(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (V)((M)p + ((M)shifted << 23));
}

/* log x for normal x > 0 (Cephes' logf). */
INLINE V logarithm(V x) {
    M bits = (M)x;
    M e = (bits >> 23) - 126;
    V m = (V)((bits & 0x007fffff) | 0x3f000000); /* in [0.5, 1) */
    M small = m < 0.707106781186547524f;
    V f = __builtin_convertvector(e + small, V); /* a true comparison is -1 */
    m = m + choose(small, m, broadcast(0.0f)) - 1.0f;
    V z = m * m;
    V p = broadcast(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z - f * 2.12194440e-4f - 0.5f * z;
    return m + p + f * 0.693359375f;
}

typedef struct { B s0, s1, s2, s3; } Stream;

static uint64_t splitmix(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static Stream stream(uint64_t seed, uint64_t call) {
    uint64_t state = seed ^ splitmix(&call), words[2 * BLOCK];
    for (int i = 0; i < 2 * BLOCK; i++) words[i] = splitmix(&state);
    Stream made;
    memcpy(&made, words, sizeof made);
    return made;
}

/* Odd multiples of 2^-24 in (0, 1). */
INLINE V uniform(Stream *s) {
    B result = s->s0 + s->s3, t = s->s1 << 9;
    s->s2 ^= s->s0;
    s->s3 ^= s->s1;
    s->s1 ^= s->s2;
    s->s0 ^= s->s3;
    s->s2 ^= t;
    s->s3 = (s->s3 << 11) | (s->s3 >> 21);
    return (__builtin_convertvector((M)(result >> 9), V) + 0.5f) * 1.1920928955078125e-7f;
}

INLINE V group_max(V x, int units) {
    for (int k = 1; k < units; k *= 2) x = larger(x, partner(x, k));
    return x;
}

INLINE V group_sum(V x, int units) {
    for (int k = 1; k < units; k *= 2) x += partner(x, k);
    return x;
}

#endif
