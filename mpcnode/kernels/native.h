/* The compiled kernels.  reference.py defines what each computes; native/ checks what they are given.
   cffi reads this file too (_build.py): only plain declarations stand outside the preprocessor's lines. */
#ifndef MPCNODE_NATIVE_H
#define MPCNODE_NATIVE_H
#include <stdint.h>
#endif

/* Threads of one call, at least 1; without OpenMP always 1. */
void mpc_set_threads(int threads);
int mpc_threads(void);

/* The instruction set in use: 0 portable, 1 AVX2, 2 AVX-512.  set_isa: at most this one of those that the processor has. */
void mpc_set_isa(int isa);
int mpc_isa(void);

/* out[batch,m,n] (=, += or -= for mode 0, 1, -1) a[batch,m,k] @ b[batch,k,n].  Strides are in bytes, multiples of 8 of
   any sign.  Returns 0, or 1 when there is no memory. */
int mpc_matmul(uint64_t *out, const uint64_t *a, const uint64_t *b, int64_t batch, int64_t m, int64_t k, int64_t n,
               int64_t a_batch, int64_t a_row, int64_t a_col, int64_t b_batch, int64_t b_row, int64_t b_col, int mode);

/* `count` products with factors read in place, one after the other; product p has rows[p] rows and depths[p] columns of
   its left factor, and its part of the offsets (in elements) follows that of p - 1:
   out[to[i] + j] (=, += or -= for mode 0, 1, -1) sum over l of a[row[i] + column[l]] * b[weight[l] + j*b_col], j < n.
   Returns 0, or 1 when there is no memory. */
int mpc_matmul_at(uint64_t *out, const uint64_t *a, const uint64_t *b, int64_t n, int64_t b_col, int64_t count,
                  const int64_t *rows, const int64_t *depths, const int64_t *to, const int64_t *row,
                  const int64_t *column, const int64_t *weight, int mode);

/* Elementwise, n elements each; a select's arguments but the mask have `terms` rows of n, which are summed. */
void mpc_mul_share(uint64_t *out, const uint64_t *mx, const uint64_t *lx, const uint64_t *my, const uint64_t *ly,
                   const uint64_t *gamma, const uint64_t *mask, int64_t n, int first);
void mpc_waxpby(uint64_t *out, uint64_t a, const uint64_t *x, uint64_t b, const uint64_t *y, int64_t n);
void mpc_trunc_deal(uint64_t *t, void *b, const uint64_t *r, int64_t n, int by, int64_t times, int b_bytes);
void mpc_trunc_share(void *out, const uint64_t *c, const void *b, const void *mask, int64_t n, int b_bytes);
void mpc_trunc_open(uint64_t *out, const uint64_t *c, const void *v, int64_t n, int by, int64_t times, int b_bytes);
void mpc_trunc_mask(uint64_t *out, const uint64_t *t, const void *mask, int64_t n, int by, int b_bytes);
void mpc_select_share(uint64_t *out, const uint8_t *bit, const uint64_t *mw, const uint64_t *lw, const uint64_t *beta,
                      const uint64_t *beta_lw, const uint64_t *mask, int64_t terms, int64_t n, int first);
void mpc_inject_share(uint64_t *out, const uint8_t *bit, const uint64_t *beta, const uint64_t *mask, int64_t n,
                      int first);

/* Elementwise as well: products of what is truncated on the way. */
void mpc_select_trunc_deal(uint64_t *t, void *b, uint64_t *beta, uint64_t *beta_t, void *beta_b, const uint8_t *bit,
                           const uint64_t *r, int64_t n, int by, int b_bytes);
void mpc_select_trunc_share(uint64_t *out, const uint8_t *bit, const uint64_t *c, const uint64_t *t, const void *b,
                            const uint64_t *beta, const uint64_t *beta_t, const void *beta_b, const uint64_t *mask,
                            int64_t terms, int64_t n, int by, int b_bytes, int first);
void mpc_mul_trunc_deal(uint64_t *t, void *b, uint64_t *t_ly, void *b_ly, const uint64_t *r, const uint64_t *ly,
                        int64_t n, int by, int b_bytes);
void mpc_mul_trunc_share(uint64_t *out, const uint64_t *c, const uint64_t *my, const uint64_t *ly, const uint64_t *t,
                         const void *b, const uint64_t *t_ly, const void *b_ly, const uint64_t *mask, int64_t n, int by,
                         int b_bytes, int first);
void mpc_square_trunc_deal(uint64_t *t, void *b, uint64_t *tt, void *bt, const uint64_t *r, int64_t n, int by,
                           int b_bytes);
void mpc_square_trunc_share(uint64_t *out, const uint64_t *c, const uint64_t *t, const void *b, const uint64_t *tt,
                            const void *bt, const uint64_t *mask, int64_t n, int by, int b_bytes, int first);

/* Bit planes: rows of `words` words. */
void mpc_pack_bits(uint64_t *planes, const uint8_t *bits, int64_t rows, int64_t elements);
void mpc_unpack_bits(uint8_t *bits, const uint64_t *plane, int64_t elements);
void mpc_to_planes(uint64_t *planes, const uint64_t *x, int64_t elements, int lo, int hi);
void mpc_and_deal(uint64_t *rows, const uint64_t *masks, int64_t words, int fan);
void mpc_and_share(uint64_t *out, const uint64_t *m, const uint64_t *masks, const uint64_t *rows, int64_t words, int fan,
                   int first);
void mpc_leaf_deal(uint64_t *rows, const uint64_t *rho, int64_t words, int bits, int chunk);
void mpc_leaf_share(uint64_t *lt, uint64_t *eq, const uint64_t *c, const uint64_t *rows, int64_t words, int bits,
                    int chunk, int first);

/* Leaves of x - cut for `count` cuts, with their top bits: see leaves in reference.py.  planes and moved: room for
   top + 1 - lo planes of the elements, and for the elements. */
void mpc_leaves(uint64_t *out, uint64_t *planes, uint64_t *moved, const uint64_t *x, const uint64_t *cuts, int64_t count,
                const uint64_t *rows, int64_t dealt, int64_t elements, int lo, int top, int chunk, int first);
void mpc_wide_gate_deal(uint64_t *rows, const uint64_t *masks, int64_t words, int fan);
void mpc_wide_gate_share(uint64_t *out, const uint64_t *m, const uint64_t *masks, const uint64_t *rows, int64_t words,
                         int fan, int first);

/* A gate's products are given as sets of its 2·fan inputs, one byte each (bit i: input i), in dealing order. */
void mpc_gate_deal(uint64_t *rows, const uint64_t *masks, const uint8_t *sets, int count, int64_t words);
void mpc_gate_share(uint64_t *out, const uint64_t *m, const uint64_t *masks, const uint64_t *rows, const uint8_t *sets,
                    int count, int64_t words, int fan, int with_eq, int first);

/* Distributed comparison functions: see dcf.py.  moved: room for the elements.  Without AES instructions, which
   `compiled` tells, these compute nothing. */
int mpc_dcf_compiled(void);
void mpc_dcf_deal(uint8_t *out, const uint64_t *x, const uint64_t *roots, int64_t elements, int lo, int top);
void mpc_dcf_share(uint8_t *out, uint8_t *tops, uint64_t *moved, const uint64_t *x, const uint64_t *cuts, int64_t count,
                   const uint8_t *key, const uint64_t *root, int64_t elements, int lo, int top, int first);
