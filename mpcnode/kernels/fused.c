/* Products of what is truncated on the way: t = a' - (r >> by) + wrap·(r >> 63) with a' = (c' >> by) - 2^(62-by), wrap =
   2^(64-by) or 0 and c' = c + 2^62 is not opened, but multiplied as it stands (see reference.py).  No branch and no
   address depends on data.  What counts mod 2^by only travels in 1, 2, 4 or 8 bytes. */
#include <string.h>

#include "isa.h"
#include "native.h"

#define GRAIN 16384 /* elements that are worth a thread */
#define SUMMED 1024  /* elements of a sum that are worked on at a time */

INLINE uint64_t public_part(uint64_t c, int by) {
    return ((c + ((uint64_t)1 << 62)) >> by) - ((uint64_t)1 << (62 - by));
}

/* All ones where the wrap bit counts, which is where the top bit of c' is 0. */
INLINE uint64_t counts(uint64_t c) { return ((c + ((uint64_t)1 << 62)) >> 63) - 1; }

typedef struct {
    uint64_t *t, *beta, *beta_t;
    void *b, *beta_b;
    const uint8_t *bit;
    const uint64_t *r;
    int by;
} select_trunc_deal_args;

typedef struct {
    uint64_t *out;
    const uint8_t *bit;
    const uint64_t *c, *t, *beta, *beta_t, *mask;
    const void *b, *beta_b;
    size_t terms, n;
    int by, first;
} select_trunc_share_args;

typedef struct {
    uint64_t *t, *t_ly;
    void *b, *b_ly;
    const uint64_t *r, *ly;
    int by;
} mul_trunc_deal_args;

typedef struct {
    uint64_t *out;
    const uint64_t *c, *my, *ly, *t, *t_ly, *mask;
    const void *b, *b_ly;
    int by, first;
} mul_trunc_share_args;

typedef struct {
    uint64_t *t, *tt;
    void *b, *bt;
    const uint64_t *r;
    int by;
} square_trunc_deal_args;

typedef struct {
    uint64_t *out;
    const uint64_t *c, *t, *tt, *mask;
    const void *b, *bt;
    int by, first;
} square_trunc_share_args;

#define FUSED(bits)                                                                                            \
    INLINE void select_trunc_deal##bits##_body(const select_trunc_deal_args *p, size_t start, size_t stop) {   \
        uint64_t *restrict t = p->t, *restrict beta = p->beta, *restrict beta_t = p->beta_t;                   \
        uint##bits##_t *restrict b = p->b, *restrict beta_b = p->beta_b;                                       \
        const uint8_t *bit = p->bit;                                                                           \
        const uint64_t *r = p->r;                                                                              \
        const int by = p->by;                                                                                  \
        INDEPENDENT                                                                                            \
        for (size_t i = start; i < stop; i++) {                                                                \
            uint64_t all = (uint64_t)0 - (uint64_t)bit[i], high = r[i] >> by, top = r[i] >> 63;                \
            t[i] = high;                                                                                       \
            b[i] = (uint##bits##_t)top;                                                                        \
            beta[i] = bit[i];                                                                                  \
            beta_t[i] = all & high;                                                                            \
            beta_b[i] = (uint##bits##_t)(all & top);                                                           \
        }                                                                                                      \
    }                                                                                                          \
    KERNEL_OF(select_trunc_deal##bits, select_trunc_deal_args)                                                 \
    INLINE void select_trunc_add##bits(const select_trunc_share_args *p, size_t k, size_t start, size_t stop) {\
        uint64_t *out = p->out;                                                                                \
        const size_t at = k * p->n;                                                                            \
        const uint8_t *bit = p->bit + at;                                                                      \
        const uint64_t *c = p->c + at, *t = p->t + at, *beta = p->beta + at, *beta_t = p->beta_t + at;         \
        const uint##bits##_t *b = (const uint##bits##_t *)p->b + at;                                           \
        const uint##bits##_t *beta_b = (const uint##bits##_t *)p->beta_b + at;                                 \
        const int by = p->by;                                                                                  \
        const uint64_t first = (uint64_t)0 - (uint64_t)p->first;                                               \
        INDEPENDENT                                                                                            \
        for (size_t i = start; i < stop; i++) {                                                                \
            uint64_t known = public_part(c[i], by), wrap = counts(c[i]);                                       \
            uint64_t m = (uint64_t)0 - (uint64_t)bit[i]; /* 0 or all ones: (x ^ m) - m is (1 - 2·bit)·x */     \
            uint64_t value = (known & first) - t[i] + ((wrap & (uint64_t)b[i]) << (64 - by));                  \
            uint64_t product = beta[i] * known - beta_t[i] + ((wrap & (uint64_t)beta_b[i]) << (64 - by));      \
            out[i] += (value & m) + ((product ^ m) - m);                                                       \
        }                                                                                                      \
    }                                                                                                          \
    INLINE void select_trunc_share##bits##_body(const select_trunc_share_args *p, size_t start, size_t stop) { \
        for (size_t from = start; from < stop; from += SUMMED) {                                               \
            size_t to = stop - from < SUMMED ? stop : from + SUMMED;                                           \
            memcpy(p->out + from, p->mask + from, (to - from) * sizeof(uint64_t));                             \
            for (size_t k = 0; k < p->terms; k++)                                                              \
                select_trunc_add##bits(p, k, from, to);                                                        \
        }                                                                                                      \
    }                                                                                                          \
    KERNEL_OF(select_trunc_share##bits, select_trunc_share_args)                                               \
    INLINE void mul_trunc_deal##bits##_body(const mul_trunc_deal_args *p, size_t start, size_t stop) {         \
        uint64_t *restrict t = p->t, *restrict t_ly = p->t_ly;                                                 \
        uint##bits##_t *restrict b = p->b, *restrict b_ly = p->b_ly;                                           \
        const uint64_t *r = p->r, *ly = p->ly;                                                                 \
        const int by = p->by;                                                                                  \
        INDEPENDENT                                                                                            \
        for (size_t i = start; i < stop; i++) {                                                                \
            uint64_t high = r[i] >> by, top = r[i] >> 63;                                                      \
            t[i] = high;                                                                                       \
            b[i] = (uint##bits##_t)top;                                                                        \
            t_ly[i] = high * ly[i];                                                                            \
            b_ly[i] = (uint##bits##_t)(((uint64_t)0 - top) & ly[i]);                                           \
        }                                                                                                      \
    }                                                                                                          \
    KERNEL_OF(mul_trunc_deal##bits, mul_trunc_deal_args)                                                       \
    INLINE void mul_trunc_share##bits##_body(const mul_trunc_share_args *p, size_t start, size_t stop) {       \
        uint64_t *restrict out = p->out;                                                                       \
        const uint64_t *c = p->c, *my = p->my, *ly = p->ly, *t = p->t, *t_ly = p->t_ly, *mask = p->mask;       \
        const uint##bits##_t *b = p->b, *b_ly = p->b_ly;                                                       \
        const int by = p->by;                                                                                  \
        const uint64_t first = (uint64_t)0 - (uint64_t)p->first;                                               \
        INDEPENDENT                                                                                            \
        for (size_t i = start; i < stop; i++) { /* my·a' - a'·ly is one product */                             \
            uint64_t known = public_part(c[i], by), wrap = counts(c[i]);                                       \
            uint64_t wraps = (wrap & (my[i] * (uint64_t)b[i] - (uint64_t)b_ly[i])) << (64 - by);               \
            out[i] = mask[i] + t_ly[i] + known * ((my[i] & first) - ly[i]) - my[i] * t[i] + wraps;             \
        }                                                                                                      \
    }                                                                                                          \
    KERNEL_OF(mul_trunc_share##bits, mul_trunc_share_args)                                                     \
    INLINE void square_trunc_deal##bits##_body(const square_trunc_deal_args *p, size_t start, size_t stop) {   \
        uint64_t *restrict t = p->t, *restrict tt = p->tt;                                                     \
        uint##bits##_t *restrict b = p->b, *restrict bt = p->bt;                                               \
        const uint64_t *r = p->r;                                                                              \
        const int by = p->by;                                                                                  \
        INDEPENDENT                                                                                            \
        for (size_t i = start; i < stop; i++) {                                                                \
            uint64_t high = r[i] >> by, top = r[i] >> 63;                                                      \
            t[i] = high;                                                                                       \
            b[i] = (uint##bits##_t)top;                                                                        \
            tt[i] = high * high;                                                                               \
            bt[i] = (uint##bits##_t)(((uint64_t)0 - top) & high);                                              \
        }                                                                                                      \
    }                                                                                                          \
    KERNEL_OF(square_trunc_deal##bits, square_trunc_deal_args)                                                 \
    INLINE void square_trunc_share##bits##_body(const square_trunc_share_args *p, size_t start, size_t stop) { \
        uint64_t *restrict out = p->out;                                                                       \
        const uint64_t *c = p->c, *t = p->t, *tt = p->tt, *mask = p->mask;                                     \
        const uint##bits##_t *b = p->b, *bt = p->bt;                                                           \
        const int by = p->by;                                                                                  \
        const uint64_t first = (uint64_t)0 - (uint64_t)p->first, one = (uint64_t)1 << (64 - by);               \
        INDEPENDENT                                                                                            \
        for (size_t i = start; i < stop; i++) {                                                                \
            uint64_t known = public_part(c[i], by), wrap = counts(c[i]) & one;                                 \
            uint64_t wraps = wrap * ((2 * known + wrap) * (uint64_t)b[i] - 2 * (uint64_t)bt[i]);               \
            out[i] = mask[i] + tt[i] + known * ((known & first) - 2 * t[i]) + wraps;                           \
        }                                                                                                      \
    }                                                                                                          \
    KERNEL_OF(square_trunc_share##bits, square_trunc_share_args)

FUSED(8)
FUSED(16)
FUSED(32)
FUSED(64)

#define BY_BYTES(name, bytes) \
    ((bytes) == 1 ? name##8_for : (bytes) == 2 ? name##16_for : (bytes) == 4 ? name##32_for : name##64_for)

void mpc_select_trunc_deal(uint64_t *t, void *b, uint64_t *beta, uint64_t *beta_t, void *beta_b, const uint8_t *bit,
                           const uint64_t *r, int64_t n, int by, int b_bytes) {
    select_trunc_deal_args args = {t, beta, beta_t, b, beta_b, bit, r, by};
    mpc_run(BY_BYTES(select_trunc_deal, b_bytes), &args, (size_t)n, GRAIN);
}

void mpc_select_trunc_share(uint64_t *out, const uint8_t *bit, const uint64_t *c, const uint64_t *t, const void *b,
                            const uint64_t *beta, const uint64_t *beta_t, const void *beta_b, const uint64_t *mask,
                            int64_t terms, int64_t n, int by, int b_bytes, int first) {
    select_trunc_share_args args = {out, bit, c, t, beta, beta_t, mask, b, beta_b, (size_t)terms, (size_t)n, by,
                                    first != 0};
    mpc_run(BY_BYTES(select_trunc_share, b_bytes), &args, (size_t)n, GRAIN);
}

void mpc_mul_trunc_deal(uint64_t *t, void *b, uint64_t *t_ly, void *b_ly, const uint64_t *r, const uint64_t *ly,
                        int64_t n, int by, int b_bytes) {
    mul_trunc_deal_args args = {t, t_ly, b, b_ly, r, ly, by};
    mpc_run(BY_BYTES(mul_trunc_deal, b_bytes), &args, (size_t)n, GRAIN);
}

void mpc_mul_trunc_share(uint64_t *out, const uint64_t *c, const uint64_t *my, const uint64_t *ly, const uint64_t *t,
                         const void *b, const uint64_t *t_ly, const void *b_ly, const uint64_t *mask, int64_t n, int by,
                         int b_bytes, int first) {
    mul_trunc_share_args args = {out, c, my, ly, t, t_ly, mask, b, b_ly, by, first != 0};
    mpc_run(BY_BYTES(mul_trunc_share, b_bytes), &args, (size_t)n, GRAIN);
}

void mpc_square_trunc_deal(uint64_t *t, void *b, uint64_t *tt, void *bt, const uint64_t *r, int64_t n, int by,
                           int b_bytes) {
    square_trunc_deal_args args = {t, tt, b, bt, r, by};
    mpc_run(BY_BYTES(square_trunc_deal, b_bytes), &args, (size_t)n, GRAIN);
}

void mpc_square_trunc_share(uint64_t *out, const uint64_t *c, const uint64_t *t, const void *b, const uint64_t *tt,
                            const void *bt, const uint64_t *mask, int64_t n, int by, int b_bytes, int first) {
    square_trunc_share_args args = {out, c, t, tt, mask, b, bt, by, first != 0};
    mpc_run(BY_BYTES(square_trunc_share, b_bytes), &args, (size_t)n, GRAIN);
}
