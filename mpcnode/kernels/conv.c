/* Convolutions mod 2^64, as matrix products whose left factor is read in place: its element (i, l) stands at
   row[i] + column[l] (places.py).  Blocks of both factors are gathered into buffers that stay in the second-level cache
   and multiplied there.  No branch and no address depends on data. */
#include <stdlib.h>
#include <string.h>

#include "native.h"
#ifdef _OPENMP
#include <omp.h>
#endif

#define ROWS 256  /* of a block: each block gathers the right factor anew */
#define DEPTH 256 /* columns of a block */

typedef struct {
    uint64_t *out;
    const uint64_t *a, *b;
    int64_t n, b_col, m, k;
    const int64_t *to, *row, *column, *weight;
    int mode;
} product;

static int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }

/* How many neighbours stand next to each other from the first on; every run of them is as long, or 1 is returned. */
static int64_t run_of(const int64_t *at, int64_t count) {
    int64_t run = 1;
    while (run < count && at[run] == at[run - 1] + 1)
        run++;
    if (count % run)
        return 1;
    for (int64_t i = 0; i < count; i += run)
        for (int64_t j = 1; j < run; j++)
            if (at[i + j] != at[i] + j)
                return 1;
    return run;
}

/* to[i][j] = from[outer[i] + inner[j]] */
static void gather(uint64_t *to, const uint64_t *from, const int64_t *outer, int64_t m, const int64_t *inner, int64_t n,
                   int64_t run) {
    for (int64_t i = 0; i < m; i++, to += n) {
        const uint64_t *start = from + outer[i];
        if (run < 4)
            for (int64_t j = 0; j < n; j++)
                to[j] = start[inner[j]];
        else
            for (int64_t j = 0; j < n; j += run)
                memcpy(to + j, start + inner[j], (size_t)run * sizeof(uint64_t));
    }
}

/* Rows i0 .. i0+m-1 of the result. */
static int multiply_rows(const product *p, int64_t i0, int64_t m) {
    const int64_t depth = least(DEPTH, p->k), n = p->n;
    uint64_t *a = malloc((size_t)(m * depth + depth * n + m * n + 1) * sizeof(uint64_t));
    if (!a)
        return 1;
    uint64_t *b = a + m * depth, *sum = b + depth * n;
    int failed = 0;
    if (p->k == 0)
        memset(sum, 0, (size_t)(m * n) * sizeof(uint64_t));
    for (int64_t l = 0; l < p->k; l += depth) {
        const int64_t k = least(depth, p->k - l), along = run_of(p->column + l, k), across = run_of(p->row + i0, m);
        const int by_rows = along >= across; /* how the block stands in its buffer: as it stands in memory */
        if (by_rows)
            gather(a, p->a, p->row + i0, m, p->column + l, k, along);
        else
            gather(a, p->a, p->column + l, k, p->row + i0, m, across);
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < n; j++)
                b[i * n + j] = p->b[p->weight[l + i] + j * p->b_col];
        failed |= mpc_matmul(sum, a, b, 1, m, k, n, 0, by_rows ? 8 * k : 8, by_rows ? 8 : 8 * m, 0, 8 * n, 8, l > 0);
    }
    for (int64_t i = 0; i < m; i++) {
        uint64_t *out = p->out + p->to[i0 + i], *from = sum + i * n;
        for (int64_t j = 0; j < n; j++)
            out[j] = p->mode == 0 ? from[j] : p->mode > 0 ? out[j] + from[j] : out[j] - from[j];
    }
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
