/* Matrix products mod 2^64: register tiles over packed panels, as in Goto and van de Geijn (ACM TOMS 34(3), 2008).

   A panel of A holds `rows` rows and a panel of B `vectors` vectors of columns, both for `DEPTH` values of k at most,
   so that a panel of B stays in the first-level cache, a block of A in the second and a block of B in the third.  Only
   the tile kernel (tiles.h) and the form of A's panels depend on the instruction set.  No branch and no address depends
   on data. */
#include <stdlib.h>
#include <string.h>

#include "isa.h"
#include "native.h"
#include "tiles.h"

#define COLUMNS 1536          /* of a block of B: a multiple of every tile's columns */
#define FEW 3                 /* rows or columns that are not worth packing the other matrix */
#define LARGE 512             /* in every direction: worth seven products of halves */
#define STRIP 512             /* columns that such a product sums at a time */
#define THREAD_WORK (1 << 18) /* multiply-adds that are worth a thread */

typedef struct {
    uint64_t *out;
    const uint64_t *a, *b;
    int64_t m, k, n, out_row, out_col, a_row, a_col, b_row, b_col;
    int mode;
} product;

/* ---- blocks ---- */
/* One tile of the result; a ragged or strided one goes through a buffer. */
static void put_tile(const tiling *t, const product *p, int64_t i, int64_t j, int64_t rows, int64_t columns,
                     const uint64_t *a, const uint64_t *b, int64_t k, int mode) {
    const int64_t vectors = (columns + t->lanes - 1) / t->lanes;
    uint64_t *out = p->out + i * p->out_row + j * p->out_col;
    tile_kernel tile = t->tile[rows - 1][vectors - 1];
    if (p->out_col == 1 && columns == vectors * t->lanes) {
        tile(out, p->out_row, a, b, k, mode);
        return;
    }
    uint64_t buffer[MOST_ROWS * MOST_COLUMNS];
    tile(buffer, vectors * t->lanes, a, b, k, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            uint64_t *to = out + r * p->out_row + c * p->out_col, x = buffer[r * vectors * t->lanes + c];
            *to = mode == 0 ? x : mode > 0 ? *to + x : *to - x;
        }
}

/* Rows i0 .. i1-1 and columns j0 .. j1-1 of the result, of packed k. */
static void block(const tiling *t, const product *p, int64_t i0, int64_t i1, int64_t j0, int64_t j1, const uint64_t *a,
                  const uint64_t *b, int64_t k, int mode) {
    const int64_t width = t->vectors * t->lanes, rows = panel_rows(k, t->pairs);
    for (int64_t j = j0; j < j1; j += width)
        for (int64_t i = i0; i < i1; i += t->rows)
            put_tile(t, p, i, j, least(t->rows, i1 - i), least(width, j1 - j), a + (i - i0) * rows,
                     b + (j - j0) * rows, k, mode);
}

static int multiply(const tiling *t, const product *p) {
    const int64_t rows = panel_rows(least(DEPTH, p->k), t->pairs);
    const int64_t a_words = (least(t->block_rows, p->m) * rows + 7) / 8 * 8;
    const int64_t b_words = (least(COLUMNS, p->n) + t->lanes) * rows;
    uint64_t *a = aligned_alloc(64, (size_t)(a_words + b_words + 8) / 8 * 64);
    if (!a)
        return 1;
    uint64_t *b = a + a_words;
    for (int64_t j0 = 0; j0 < p->n; j0 += COLUMNS)
        for (int64_t l = 0; l < p->k; l += DEPTH) {
            const int64_t k = least(DEPTH, p->k - l), j1 = least(p->n, j0 + COLUMNS);
            const uint64_t *columns = p->b + l * p->b_row + j0 * p->b_col;
            t->pack(&(packing){b, columns, j1 - j0, t->vectors * t->lanes, t->lanes, k, p->b_col, p->b_row, t->pairs});
            for (int64_t i0 = 0; i0 < p->m; i0 += t->block_rows) {
                const int64_t i1 = least(p->m, i0 + t->block_rows);
                t->pack(&(packing){a, p->a + i0 * p->a_row + l * p->a_col, i1 - i0, t->rows, 1, k, p->a_row, p->a_col,
                                   t->pairs});
                block(t, p, i0, i1, j0, j1, a, b, k, p->mode ? p->mode : l > 0);
            }
        }
    free(a);
    return 0;
}

/* ---- seven products instead of eight ----
   Strassen's algorithm as Winograd arranged it (Probert, SIAM J. Computing 5(2), 1976): with halves in every direction,

       S1 = A21 + A22     S2 = S1 - A11      S3 = A11 - A21     S4 = A12 - S2
       T1 = B12 - B11     T2 = B22 - T1      T3 = B22 - B12     T4 = T2 - B21

       C11 = A11·B11 + A12·B21
       C12 = A11·B11 + S2·T2 + S1·T1 + S4·B22
       C21 = A11·B11 + S2·T2 + S3·T3 - A22·T4
       C22 = A11·B11 + S2·T2 + S3·T3 + S1·T1

   with three matrices beside the result: those of all levels together are a third as large as factors and result. */
typedef struct {
    uint64_t *at;
    int64_t row, col;
} matrix;

/* to = x + y or x - y.  `to` may be x or y. */
static void combine(matrix to, matrix x, matrix y, int minus, int64_t m, int64_t n) {
    if (to.row == 1) { /* by columns */
        to = (matrix){to.at, to.col, 1}, x = (matrix){x.at, x.col, x.row}, y = (matrix){y.at, y.col, y.row};
        int64_t rows = m;
        m = n, n = rows;
    }
    const uint64_t flip = minus ? (uint64_t)-1 : 0; /* x - y = ~(~x + y) */
    for (int64_t i = 0; i < m; i++) {
        uint64_t *out = to.at + i * to.row;
        const uint64_t *left = x.at + i * x.row, *right = y.at + i * y.row;
        if (x.col == 1 && y.col == 1) {
            INDEPENDENT
            for (int64_t j = 0; j < n; j++)
                out[j] = ((left[j] ^ flip) + right[j]) ^ flip;
        } else
            for (int64_t j = 0; j < n; j++)
                out[j] = ((left[j * x.col] ^ flip) + right[j * y.col]) ^ flip;
    }
}

/* to = x, or to += x or -= x. */
static void put_matrix(matrix to, matrix x, int mode, int64_t m, int64_t n) {
    if (mode)
        combine(to, to, x, mode < 0, m, n);
    else
        for (int64_t i = 0; i < m; i++)
            memcpy(to.at + i * to.row, x.at + i * x.row, (size_t)n * sizeof(uint64_t));
}

static int multiply_large(const tiling *t, const product *p);

typedef struct {
    const tiling *t;
    int64_t m, k, n;
    int failed;
} halves;

static void times(halves *h, matrix out, matrix a, matrix b, int mode) {
    const product p = {out.at, a.at, b.at, h->m, h->k, h->n, out.row, out.col, a.row, a.col, b.row, b.col, mode};
    h->failed |= multiply_large(h->t, &p);
}

/* Even sizes; the result's rows are contiguous. */
static int strassen(const tiling *t, const product *p) {
    halves h = {t, p->m / 2, p->k / 2, p->n / 2, 0};
    const int64_t m = h.m, k = h.k, n = h.n;
    uint64_t *memory = aligned_alloc(64, (size_t)(m * k + k * n + m * n + 7) / 8 * 64);
    if (!memory)
        return 1;
    const matrix x = p->a_row == 1 ? (matrix){memory, 1, m} : (matrix){memory, k, 1};
    const matrix y = p->b_row == 1 ? (matrix){memory + m * k, 1, k} : (matrix){memory + m * k, n, 1};
    const matrix u = {memory + m * k + k * n, n, 1};
#define QUARTER(x, i, j) ((matrix){(uint64_t *)p->x + (i)*p->x##_row + (j)*p->x##_col, p->x##_row, p->x##_col})
    const matrix a11 = QUARTER(a, 0, 0), a12 = QUARTER(a, 0, k), a21 = QUARTER(a, m, 0), a22 = QUARTER(a, m, k);
    const matrix b11 = QUARTER(b, 0, 0), b12 = QUARTER(b, 0, n), b21 = QUARTER(b, k, 0), b22 = QUARTER(b, k, n);
    const matrix c11 = QUARTER(out, 0, 0), c12 = QUARTER(out, 0, n), c21 = QUARTER(out, m, 0), c22 = QUARTER(out, m, n);
    const int first = p->mode, next = first ? first : 1;

    combine(x, a21, a22, 0, m, k); /* S1 */
    combine(y, b12, b11, 1, k, n); /* T1 */
    times(&h, u, x, y, 0);
    put_matrix(c12, u, first, m, n);
    put_matrix(c22, u, first, m, n);
    combine(x, x, a11, 1, m, k); /* S2 */
    combine(y, b22, y, 1, k, n); /* T2 */
    times(&h, u, a11, b11, 0);
    put_matrix(c11, u, first, m, n);
    times(&h, c11, a12, b21, next);
    times(&h, u, x, y, 1); /* A11·B11 + S2·T2 */
    put_matrix(c12, u, next, m, n);
    combine(x, a12, x, 1, m, k); /* S4 */
    combine(y, y, b21, 1, k, n); /* T4 */
    times(&h, c12, x, b22, next);
    times(&h, c21, a22, y, -first);
    combine(x, a11, a21, 1, m, k); /* S3 */
    combine(y, b22, b12, 1, k, n); /* T3 */
    times(&h, u, x, y, 1);
    put_matrix(c22, u, next, m, n);
    if (first)
        put_matrix(c21, u, first, m, n);
    else
        combine(c21, u, c21, 1, m, n);
    free(memory);
    return h.failed;
}

/* The same of any sizes: what halves leave over is multiplied as usual. */
static int multiply_large(const tiling *t, const product *p) {
    if (p->m < LARGE || p->k < LARGE || p->n < LARGE || p->out_col != 1)
        return multiply(t, p);
    product even = *p, depth, row, column;
    even.m -= p->m % 2, even.k -= p->k % 2, even.n -= p->n % 2;
    int failed = strassen(t, &even);
    if (even.k < p->k) {
        depth = even, depth.k = 1, depth.mode = p->mode ? p->mode : 1;
        depth.a += even.k * p->a_col, depth.b += even.k * p->b_row;
        failed |= multiply(t, &depth);
    }
    if (even.n < p->n) {
        column = *p, column.m = even.m, column.n = 1;
        column.b += even.n * p->b_col, column.out += even.n;
        failed |= multiply(t, &column);
    }
    if (even.m < p->m) {
        row = *p, row.m = 1;
        row.a += even.m * p->a_row, row.out += even.m * p->out_row;
        failed |= multiply(t, &row);
    }
    return failed;
}

/* ---- a row times a matrix: the matrix is read once, in place ---- */
typedef struct {
    uint64_t *out;
    const uint64_t *x, *b;
    int64_t k, out_col, b_row, b_col;
    int add;
} row_product_args;

INLINE void put(const row_product_args *p, int64_t column, uint64_t sum) {
    uint64_t *to = p->out + column * p->out_col;
    *to = p->add ? *to + sum : sum;
}

INLINE void sum_rows(const row_product_args *p, int64_t from, int64_t count) {
    uint64_t sum[STRIP] = {0};
    const uint64_t *x = p->x, *b = p->b + from;
    const int64_t row = p->b_row;
    int64_t i = 0;
    for (; i + 4 <= p->k; i += 4, b += 4 * row) {
        INDEPENDENT
        for (int64_t j = 0; j < count; j++)
            sum[j] += x[i] * b[j] + x[i + 1] * b[row + j] + x[i + 2] * b[2 * row + j] + x[i + 3] * b[3 * row + j];
    }
    for (; i < p->k; i++, b += row) {
        INDEPENDENT
        for (int64_t j = 0; j < count; j++)
            sum[j] += x[i] * b[j];
    }
    for (int64_t j = 0; j < count; j++)
        put(p, from + j, sum[j]);
}

INLINE uint64_t dot(const uint64_t *x, const uint64_t *y, int64_t k, int64_t step) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += x[i] * y[i * step];
    return sum;
}

INLINE void row_product_body(const row_product_args *p, size_t start, size_t stop) {
    const int64_t first = (int64_t)start, last = (int64_t)stop;
    if (p->b_row == 1)
        for (int64_t j = first; j < last; j++)
            put(p, j, dot(p->x, p->b + j * p->b_col, p->k, 1));
    else if (p->b_col == 1)
        for (int64_t j = first; j < last; j += STRIP)
            sum_rows(p, j, least(STRIP, last - j));
    else
        for (int64_t j = first; j < last; j++)
            put(p, j, dot(p->x, p->b + j * p->b_col, p->k, p->b_row));
}
KERNEL(row_product)

static int multiply_rows(const product *p) {
    uint64_t *x = malloc((size_t)p->k * sizeof(uint64_t));
    if (!x)
        return 1;
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t l = 0; l < p->k; l++) {
            uint64_t value = p->a[i * p->a_row + l * p->a_col];
            x[l] = p->mode < 0 ? 0 - value : value;
        }
        row_product_args args = {p->out + i * p->out_row, x, p->b, p->k, p->out_col, p->b_row, p->b_col, p->mode != 0};
        mpc_run(row_product_for, &args, (size_t)p->n, (size_t)(THREAD_WORK / p->k + 1));
    }
    free(x);
    return 0;
}

/* ---- the choice ---- */
static product transposed(const product *p) {
    product q = *p;
    q.a = p->b, q.a_row = p->b_col, q.a_col = p->b_row;
    q.b = p->a, q.b_row = p->a_col, q.b_col = p->a_row;
    q.m = p->n, q.n = p->m;
    q.out_row = p->out_col, q.out_col = p->out_row;
    return q;
}

/* Part `part` of `parts`, cut along the longer side of the result. */
static product cut(const product *p, int64_t part, int64_t parts) {
    product q = *p;
    if (p->m >= p->n) {
        int64_t from = p->m * part / parts;
        q.m = p->m * (part + 1) / parts - from;
        q.a += from * p->a_row;
        q.out += from * p->out_row;
    } else {
        int64_t from = p->n * part / parts / 8 * 8;
        q.n = (part + 1 < parts ? p->n * (part + 1) / parts / 8 * 8 : p->n) - from;
        q.b += from * p->b_col;
        q.out += from * p->out_col;
    }
    return q;
}

static int multiply_any(product whole) {
    const product *p = &whole;
    const tiling *t = &tilings[mpc_isa()];
    if (p->k == 0) {
        for (int64_t i = 0; i < p->m && p->mode == 0; i++)
            memset(p->out + i * p->out_row, 0, (size_t)p->n * sizeof(uint64_t));
        return 0;
    }
    if (p->m <= FEW)
        return multiply_rows(p);
    if (p->n <= FEW) {
        product q = transposed(p);
        return multiply_rows(&q);
    }
    int64_t parts = least(mpc_threads(), (int64_t)((double)p->m * (double)p->n * (double)p->k / THREAD_WORK));
    if (parts <= 1)
        return multiply_large(t, p);
    int failed = 0;
#ifdef _OPENMP
#pragma omp parallel for num_threads((int)parts) schedule(static, 1) reduction(| : failed)
#endif
    for (int64_t part = 0; part < parts; part++) {
        product q = cut(p, part, parts);
        if (q.m && q.n)
            failed |= multiply_large(t, &q);
    }
    return failed;
}

static product nth(product p, int64_t i, int64_t a_batch, int64_t b_batch) {
    p.out += i * p.m * p.n;
    p.a += i * (a_batch / 8);
    p.b += i * (b_batch / 8);
    return p;
}

int mpc_matmul(uint64_t *out, const uint64_t *a, const uint64_t *b, int64_t batch, int64_t m, int64_t k, int64_t n,
               int64_t a_batch, int64_t a_row, int64_t a_col, int64_t b_batch, int64_t b_row, int64_t b_col, int mode) {
    const product p = {out, a, b, m, k, n, n, 1, a_row / 8, a_col / 8, b_row / 8, b_col / 8, mode};
    int failed = 0;
    if (m == 0 || n == 0)
        return 0;
#ifdef _OPENMP
    if (batch > 1 && mpc_threads() > 1 && (double)batch * (double)m * (double)n * (double)k > 2 * THREAD_WORK) {
        /* A thread for each product: parallel regions do not nest. */
#pragma omp parallel for num_threads(mpc_threads()) schedule(static) reduction(| : failed)
        for (int64_t i = 0; i < batch; i++)
            failed |= multiply_any(nth(p, i, a_batch, b_batch));
        return failed;
    }
#endif
    for (int64_t i = 0; i < batch; i++)
        failed |= multiply_any(nth(p, i, a_batch, b_batch));
    return failed;
}
