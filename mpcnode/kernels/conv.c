/* Convolutions mod 2^64, as matrix products whose left factor is read in place: its element (i, l) stands at
   row[i] + column[l] (places.py).  Blocks of both factors are gathered into buffers that stay in cache, and multiplied
   there.  No branch and no address depends on data. */
#include <stdlib.h>
#include <string.h>

#include "isa.h"
#include "native.h"
#ifdef _OPENMP
#include <omp.h>
#endif

#define ROWS 512  /* of a block: each block gathers the right factor anew */
#define DEPTH 256 /* columns of a block */

typedef struct {
    uint64_t *out;
    const uint64_t *a, *b;
    int64_t n, b_col, m, k;
    const int64_t *to, *row, *column, *weight;
    int mode;
} product;

static int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }

/* Neighbours that stand next to each other in memory: run r is made of at[start[r]] .. at[start[r + 1] - 1]. */
static int64_t runs_of(int64_t *start, const int64_t *at, int64_t count) {
    int64_t runs = 0;
    for (int64_t i = 0; i < count; i++)
        if (i == 0 || at[i] != at[i - 1] + 1)
            start[runs++] = i;
    start[runs] = count;
    return runs;
}

INLINE void copy(uint64_t *to, const uint64_t *from, int64_t n) {
    for (; n >= 4; n -= 4, to += 4, from += 4)
        memcpy(to, from, 4 * sizeof(uint64_t));
    if (n & 2)
        memcpy(to, from, 2 * sizeof(uint64_t)), to += 2, from += 2;
    if (n & 1)
        *to = *from;
}

/* to[i][j] = from[outer[i] + inner[j]] */
static void gather(uint64_t *to, const uint64_t *from, const int64_t *outer, int64_t m, const int64_t *inner, int64_t n,
                   const int64_t *start, int64_t runs) {
    for (int64_t i = 0; i < m; i++, to += n) {
        const uint64_t *row = from + outer[i];
        if (2 * runs > n)
            for (int64_t j = 0; j < n; j++)
                to[j] = row[inner[j]];
        else
            for (int64_t r = 0; r < runs; r++)
                copy(to + start[r], row + inner[start[r]], start[r + 1] - start[r]);
    }
}

/* A block of the left factor into a buffer, by rows or by columns, whichever way it stands in memory: whether by rows. */
static int gather_block(uint64_t *to, const product *p, int64_t i0, int64_t m, int64_t l, int64_t k) {
    const int64_t *row = p->row + i0, *column = p->column + l;
    int64_t along[DEPTH + 1], across[ROWS + 1];
    const int64_t in_rows = runs_of(along, column, k), in_columns = runs_of(across, row, m);
    const int by_rows = in_rows * m <= in_columns * k;
    if (by_rows)
        gather(to, p->a, row, m, column, k, along, in_rows);
    else
        gather(to, p->a, column, k, row, m, across, in_columns);
    return by_rows;
}

/* out[i][j] (=, += or -=) sum[i][j], where row i of the result stands at to[i]. */
static void put_rows(const product *p, int64_t i0, int64_t m, const uint64_t *sum) {
    for (int64_t i = 0; i < m; i++, sum += p->n) {
        uint64_t *out = p->out + p->to[i0 + i];
        for (int64_t j = 0; j < p->n; j++)
            out[j] = p->mode == 0 ? sum[j] : p->mode > 0 ? out[j] + sum[j] : out[j] - sum[j];
    }
}

/* Rows i0 .. i0+m-1 of the result, at once in their place if they stand there one behind the other. */
static int multiply_rows(const product *p, int64_t i0, int64_t m) {
    const int64_t depth = least(DEPTH, p->k), n = p->n;
    uint64_t *a = malloc((size_t)(m * depth + depth * n + m * n + 1) * sizeof(uint64_t));
    if (!a)
        return 1;
    uint64_t *b = a + m * depth, *sum = b + depth * n;
    int in_place = 1, failed = 0;
    for (int64_t i = 1; i < m; i++)
        in_place &= p->to[i0 + i] == p->to[i0] + i * n;
    if (p->k == 0)
        in_place = 0, memset(sum, 0, (size_t)(m * n) * sizeof(uint64_t));
    for (int64_t l = 0; l < p->k; l += depth) {
        const int64_t k = least(depth, p->k - l);
        const int by_rows = gather_block(a, p, i0, m, l, k);
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < n; j++)
                b[i * n + j] = p->b[p->weight[l + i] + j * p->b_col];
        const int mode = in_place && p->mode ? p->mode : l > 0;
        failed |= mpc_matmul(in_place ? p->out + p->to[i0] : sum, a, b, 1, m, k, n, 0, by_rows ? 8 * k : 8,
                             by_rows ? 8 : 8 * m, 0, 8 * n, 8, mode);
    }
    if (!in_place)
        put_rows(p, i0, m, sum);
    free(a);
    return failed;
}

int mpc_matmul_at(uint64_t *out, const uint64_t *a, const uint64_t *b, int64_t n, int64_t b_col, int64_t count,
                  const int64_t *rows, const int64_t *depths, const int64_t *to, const int64_t *row,
                  const int64_t *column, const int64_t *weight, int mode) {
    int failed = 0;
    for (int64_t i = 0; i < count; i++) {
        const product p = {out, a, b, n, b_col, rows[i], depths[i], to, row, column, weight, mode};
        const int64_t blocks = (p.m + ROWS - 1) / ROWS;
#ifdef _OPENMP
#pragma omp parallel for num_threads(mpc_threads()) schedule(dynamic) reduction(| : failed) \
    if (mpc_threads() > 1 && blocks >= mpc_threads())
#endif
        for (int64_t block = 0; block < blocks; block++)
            failed |= multiply_rows(&p, block * ROWS, least(ROWS, p.m - block * ROWS));
        to += rows[i], row += rows[i], column += depths[i], weight += depths[i];
    }
    return failed;
}
