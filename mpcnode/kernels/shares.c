/* The share formulas of masked evaluation, each one pass over its operands.  No branch and no address depends on
   data. */
#include <string.h>

#include "isa.h"
#include "native.h"

#define GRAIN 16384 /* elements that are worth a thread */

/* ---- products ---- */
typedef struct {
    uint64_t *out;
    const uint64_t *mx, *lx, *my, *ly, *gamma, *mask;
    int first;
} mul_share_args;

INLINE void mul_share_body(const mul_share_args *p, size_t start, size_t stop) {
    uint64_t *restrict out = p->out;
    const uint64_t *mx = p->mx, *lx = p->lx, *my = p->my, *ly = p->ly, *gamma = p->gamma, *mask = p->mask;
    const uint64_t first = (uint64_t)0 - (uint64_t)p->first;
    INDEPENDENT
    for (size_t i = start; i < stop; i++) /* mx·my - mx·ly is one product */
        out[i] = gamma[i] + mask[i] + mx[i] * ((my[i] & first) - ly[i]) - lx[i] * my[i];
}
KERNEL(mul_share)

void mpc_mul_share(uint64_t *out, const uint64_t *mx, const uint64_t *lx, const uint64_t *my, const uint64_t *ly,
                   const uint64_t *gamma, const uint64_t *mask, int64_t n, int first) {
    mul_share_args args = {out, mx, lx, my, ly, gamma, mask, first != 0};
    mpc_run(mul_share_for, &args, (size_t)n, GRAIN);
}

typedef struct {
    uint64_t *out;
    uint64_t a, b;
    const uint64_t *x, *y;
} waxpby_args;

INLINE void waxpby_of(const waxpby_args *p, const uint64_t a, const uint64_t b, size_t start, size_t stop) {
    uint64_t *restrict out = p->out;
    const uint64_t *x = p->x, *y = p->y;
    INDEPENDENT
    for (size_t i = start; i < stop; i++)
        out[i] = a * x[i] + b * y[i];
}

INLINE void waxpby_body(const waxpby_args *p, size_t start, size_t stop) {
    if (p->a == 1 && p->b == (uint64_t)-2) /* the factors of two evaluators: a shift */
        waxpby_of(p, 1, (uint64_t)-2, start, stop);
    else
        waxpby_of(p, p->a, p->b, start, stop);
}
KERNEL(waxpby)

void mpc_waxpby(uint64_t *out, uint64_t a, const uint64_t *x, uint64_t b, const uint64_t *y, int64_t n) {
    waxpby_args args = {out, a, b, x, y};
    mpc_run(waxpby_for, &args, (size_t)n, GRAIN);
}

/* ---- exact truncation; the wrap bit travels in 1, 2, 4 or 8 bytes ---- */
/* x·times >> by for 1 <= times < 2^31 and times <= 2^by, without a product of 96 bits. */
INLINE uint64_t scaled(uint64_t x, uint64_t times, int by) {
    uint64_t high = (x >> 32) * times, low = (x & 0xffffffff) * times;
    return by < 32 ? (high << (32 - by)) + (low >> by) : (high + (low >> 32)) >> (by - 32);
}

typedef struct {
    uint64_t *t;
    void *b;
    const uint64_t *r;
    int by;
    uint64_t times;
} trunc_deal_args;

typedef struct {
    void *out;
    const uint64_t *c;
    const void *b, *mask;
} trunc_share_args;

typedef struct {
    uint64_t *out;
    const uint64_t *c;
    const void *v;
    int by;
    uint64_t times;
} trunc_open_args;

typedef struct {
    uint64_t *out;
    const uint64_t *t;
    const void *mask;
    int by;
} trunc_mask_args;

#define TRUNC(bits)                                                                                                  \
    INLINE void trunc_deal##bits##_body(const trunc_deal_args *p, size_t start, size_t stop) {                       \
        uint64_t *restrict t = p->t;                                                                                 \
        uint##bits##_t *restrict b = p->b;                                                                           \
        const uint64_t *r = p->r;                                                                                    \
        const int by = p->by;                                                                                        \
        const uint64_t times = p->times;                                                                             \
        INDEPENDENT                                                                                                  \
        for (size_t i = start; i < stop; i++) {                                                                      \
            t[i] = times == 1 ? r[i] >> by : scaled(r[i], times, by);                                                \
            b[i] = (uint##bits##_t)((r[i] >> 63) * times);                                                           \
        }                                                                                                            \
    }                                                                                                                \
    KERNEL_OF(trunc_deal##bits, trunc_deal_args)                                                                     \
    INLINE void trunc_share##bits##_body(const trunc_share_args *p, size_t start, size_t stop) {                     \
        uint##bits##_t *restrict out = p->out;                                                                       \
        const uint64_t *c = p->c;                                                                                    \
        const uint##bits##_t *b = p->b, *mask = p->mask;                                                             \
        INDEPENDENT                                                                                                  \
        for (size_t i = start; i < stop; i++) {                                                                      \
            uint64_t no_top = ((c[i] + ((uint64_t)1 << 62)) >> 63) - 1; /* all ones when the top bit is 0 */         \
            out[i] = (uint##bits##_t)(mask[i] + ((uint##bits##_t)no_top & b[i]));                                    \
        }                                                                                                            \
    }                                                                                                                \
    KERNEL_OF(trunc_share##bits, trunc_share_args)                                                                   \
    INLINE void trunc_open##bits##_body(const trunc_open_args *p, size_t start, size_t stop) {                       \
        uint64_t *restrict out = p->out;                                                                             \
        const uint64_t *c = p->c;                                                                                    \
        const uint##bits##_t *v = p->v;                                                                              \
        const int by = p->by;                                                                                        \
        const uint64_t times = p->times, offset = times << (62 - by);                                                \
        INDEPENDENT                                                                                                  \
        for (size_t i = start; i < stop; i++) {                                                                      \
            uint64_t shifted = c[i] + ((uint64_t)1 << 62);                                                           \
            uint64_t known = times == 1 ? shifted >> by : scaled(shifted, times, by);                                \
            out[i] = known - offset + ((uint64_t)v[i] << (64 - by));                                                 \
        }                                                                                                            \
    }                                                                                                                \
    KERNEL_OF(trunc_open##bits, trunc_open_args)                                                                     \
    INLINE void trunc_mask##bits##_body(const trunc_mask_args *p, size_t start, size_t stop) {                       \
        uint64_t *restrict out = p->out;                                                                             \
        const uint64_t *t = p->t;                                                                                    \
        const uint##bits##_t *mask = p->mask;                                                                        \
        const int by = p->by;                                                                                        \
        INDEPENDENT                                                                                                  \
        for (size_t i = start; i < stop; i++)                                                                        \
            out[i] = t[i] + ((uint64_t)mask[i] << (64 - by));                                                        \
    }                                                                                                                \
    KERNEL_OF(trunc_mask##bits, trunc_mask_args)

TRUNC(8)
TRUNC(16)
TRUNC(32)
TRUNC(64)

#define BY_BYTES(name, bytes) \
    ((bytes) == 1 ? name##8_for : (bytes) == 2 ? name##16_for : (bytes) == 4 ? name##32_for : name##64_for)

void mpc_trunc_deal(uint64_t *t, void *b, const uint64_t *r, int64_t n, int by, int64_t times, int b_bytes) {
    trunc_deal_args args = {t, b, r, by, (uint64_t)times};
    mpc_run(BY_BYTES(trunc_deal, b_bytes), &args, (size_t)n, GRAIN);
}

void mpc_trunc_share(void *out, const uint64_t *c, const void *b, const void *mask, int64_t n, int b_bytes) {
    trunc_share_args args = {out, c, b, mask};
    mpc_run(BY_BYTES(trunc_share, b_bytes), &args, (size_t)n, GRAIN);
}

void mpc_trunc_open(uint64_t *out, const uint64_t *c, const void *v, int64_t n, int by, int64_t times, int b_bytes) {
    trunc_open_args args = {out, c, v, by, (uint64_t)times};
    mpc_run(BY_BYTES(trunc_open, b_bytes), &args, (size_t)n, GRAIN);
}

void mpc_trunc_mask(uint64_t *out, const uint64_t *t, const void *mask, int64_t n, int by, int b_bytes) {
    trunc_mask_args args = {out, t, mask, by};
    mpc_run(BY_BYTES(trunc_mask, b_bytes), &args, (size_t)n, GRAIN);
}

/* ---- sums of masked bits times ring elements, terms[k][n], a block of the sums at a time ---- */
#define SUMMED 1024
typedef struct {
    uint64_t *out;
    const uint8_t *bit;
    const uint64_t *mw, *lw, *beta, *beta_lw, *mask;
    size_t terms, n;
    int first;
} select_share_args;

/* Elements start .. stop-1 of term k. */
INLINE void select_share_add(const select_share_args *p, size_t k, size_t start, size_t stop) {
    uint64_t *out = p->out;
    const uint8_t *bit = p->bit + k * p->n;
    const uint64_t *mw = p->mw + k * p->n, *lw = p->lw + k * p->n;
    const uint64_t *beta = p->beta + k * p->n, *beta_lw = p->beta_lw + k * p->n;
    const uint64_t first = (uint64_t)0 - (uint64_t)p->first;
    INDEPENDENT
    for (size_t i = start; i < stop; i++) {
        uint64_t m = (uint64_t)0 - (uint64_t)bit[i]; /* 0 or all ones: (x ^ m) - m is (1 - 2·bit)·x */
        uint64_t product = beta[i] * mw[i] - beta_lw[i];
        out[i] += (((mw[i] & first) - lw[i]) & m) + ((product ^ m) - m);
    }
}

INLINE void select_share_body(const select_share_args *p, size_t start, size_t stop) {
    for (size_t from = start; from < stop; from += SUMMED) {
        size_t to = stop - from < SUMMED ? stop : from + SUMMED;
        memcpy(p->out + from, p->mask + from, (to - from) * sizeof(uint64_t));
        for (size_t k = 0; k < p->terms; k++)
            select_share_add(p, k, from, to);
    }
}
KERNEL(select_share)

void mpc_select_share(uint64_t *out, const uint8_t *bit, const uint64_t *mw, const uint64_t *lw, const uint64_t *beta,
                      const uint64_t *beta_lw, const uint64_t *mask, int64_t terms, int64_t n, int first) {
    select_share_args args = {out, bit, mw, lw, beta, beta_lw, mask, (size_t)terms, (size_t)n, first != 0};
    mpc_run(select_share_for, &args, (size_t)n, GRAIN);
}

typedef struct {
    uint64_t *out;
    const uint8_t *bit;
    const uint64_t *beta, *mask;
    int first;
} inject_share_args;

INLINE void inject_share_body(const inject_share_args *p, size_t start, size_t stop) {
    uint64_t *restrict out = p->out;
    const uint8_t *bit = p->bit;
    const uint64_t *beta = p->beta, *mask = p->mask;
    const uint64_t first = (uint64_t)0 - (uint64_t)p->first;
    INDEPENDENT
    for (size_t i = start; i < stop; i++) {
        uint64_t m = (uint64_t)0 - (uint64_t)bit[i];
        out[i] = mask[i] + ((beta[i] ^ m) - m) - (m & first);
    }
}
KERNEL(inject_share)

void mpc_inject_share(uint64_t *out, const uint8_t *bit, const uint64_t *beta, const uint64_t *mask, int64_t n,
                      int first) {
    inject_share_args args = {out, bit, beta, mask, first != 0};
    mpc_run(inject_share_for, &args, (size_t)n, GRAIN);
}
