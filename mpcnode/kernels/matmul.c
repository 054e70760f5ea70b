/* Matrix products mod 2^64: register tiles over packed panels, as in Goto and van de Geijn (ACM TOMS 34(3), 2008).

   A panel of A holds `rows` rows and a panel of B `vectors` vectors of columns, both for `DEPTH` values of k at most, so that a panel of B
   stays in the first-level cache, a block of A in the second and a block of B in the third.  Only the tile kernel (tiles.h) and the form
   of A's panels depend on the instruction set.  No branch and no address depends on data. */
#include <stdlib.h>
#include <string.h>

#include "isa.h"
#include "native.h"
#include "tiles.h"

#define DEPTH 256            /* k of a panel */
#define ROWS 96              /* of a block of A: a multiple of every tile's rows */
#define COLUMNS 1536         /* of a block of B: a multiple of every tile's columns */
#define THREAD_WORK (1 << 18) /* multiply-adds that are worth a thread */

typedef struct {
    uint64_t *out;
    const uint64_t *a, *b;
    int64_t m, k, n, out_row, out_col, a_row, a_col, b_row, b_col;
    int mode;
} product;

static int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }

/* ---- packing ---- */
/* rows x k of A -> panel[k][rows], each element negated if need be, and followed by its swapped halves if the tile wants them. */
static void pack_rows(uint64_t *panel, const uint64_t *a, int64_t rows, int64_t k, int64_t row, int64_t col, int negate, int copies) {
    const uint64_t sign = (uint64_t)0 - (uint64_t)negate;
    for (int64_t r = 0; r < rows; r++)
        if (copies == 2)
            for (int64_t i = 0; i < k; i++) {
                uint64_t x = (a[r * row + i * col] ^ sign) - sign;
                panel[2 * (i * rows + r)] = x;
                panel[2 * (i * rows + r) + 1] = x << 32 | x >> 32;
            }
        else
            for (int64_t i = 0; i < k; i++)
                panel[i * rows + r] = (a[r * row + i * col] ^ sign) - sign;
}

/* k x columns of B -> panel[k][width], zeros behind the last column. */
static void pack_columns(uint64_t *panel, const uint64_t *b, int64_t k, int64_t columns, int64_t width, int64_t row, int64_t col) {
    if (col == 1 && columns == width)
        for (int64_t i = 0; i < k; i++)
            memcpy(panel + i * width, b + i * row, (size_t)width * sizeof(uint64_t));
    else
        for (int64_t j = 0; j < width; j++)
            for (int64_t i = 0; i < k; i++)
                panel[i * width + j] = j < columns ? b[i * row + j * col] : 0;
}

/* ---- blocks ---- */
/* One tile of the result; a ragged or strided one goes through a buffer. */
static void put_tile(const tiling *t, const product *p, int64_t i, int64_t j, int64_t rows, int64_t columns, int64_t vectors,
                     const uint64_t *a, const uint64_t *b, int64_t b_row, int64_t k, int add) {
    uint64_t *out = p->out + i * p->out_row + j * p->out_col;
    tile_kernel tile = t->tile[rows - 1][vectors - 1];
    if (p->out_col == 1 && columns == vectors * t->lanes) {
        tile(out, p->out_row, a, b, b_row, k, add);
        return;
    }
    uint64_t buffer[MOST_ROWS * MOST_COLUMNS];
    tile(buffer, vectors * t->lanes, a, b, b_row, k, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            uint64_t *to = out + r * p->out_row + c * p->out_col, x = buffer[r * vectors * t->lanes + c];
            *to = add ? *to + x : x;
        }
}

static void block(const tiling *t, const product *p, int64_t i0, int64_t i1, int64_t j0, int64_t j1, const uint64_t *a, const uint64_t *b,
                  int64_t k, int add) {
    const int64_t width = t->vectors * t->lanes;
    for (int64_t j = j0; j < j1; j += width) {
        int64_t columns = least(width, j1 - j), vectors = (columns + t->lanes - 1) / t->lanes;
        for (int64_t i = i0; i < i1; i += t->rows)
            put_tile(t, p, i, j, least(t->rows, i1 - i), columns, vectors, a + (i - i0) * k * t->copies, b + (j - j0) * k,
                     vectors * t->lanes, k, add);
    }
}

static int multiply(const tiling *t, const product *p) {
    const int64_t depth = least(DEPTH, p->k), width = t->vectors * t->lanes;
    const int64_t a_words = (least(ROWS, p->m) * depth * t->copies + 7) / 8 * 8;
    const int64_t b_words = (least(COLUMNS, p->n) + t->lanes) * depth;
    uint64_t *a = aligned_alloc(64, (size_t)(a_words + b_words + 8) / 8 * 64);
    if (!a)
        return 1;
    uint64_t *b = a + a_words;
    for (int64_t j0 = 0; j0 < p->n; j0 += COLUMNS)
        for (int64_t l = 0; l < p->k; l += DEPTH) {
            int64_t k = least(DEPTH, p->k - l), j1 = least(p->n, j0 + COLUMNS);
            for (int64_t j = j0; j < j1; j += width) {
                int64_t columns = least(width, j1 - j), padded = (columns + t->lanes - 1) / t->lanes * t->lanes;
                pack_columns(b + (j - j0) * k, p->b + l * p->b_row + j * p->b_col, k, columns, padded, p->b_row, p->b_col);
            }
            for (int64_t i0 = 0; i0 < p->m; i0 += ROWS) {
                int64_t i1 = least(p->m, i0 + ROWS);
                for (int64_t i = i0; i < i1; i += t->rows)
                    pack_rows(a + (i - i0) * k * t->copies, p->a + i * p->a_row + l * p->a_col, least(t->rows, i1 - i), k, p->a_row,
                              p->a_col, p->mode < 0, t->copies);
                block(t, p, i0, i1, j0, j1, a, b, k, l > 0 || p->mode != 0);
            }
        }
    free(a);
    return 0;
}

static int multiply_any(const product *p) {
    if (p->k == 0) {
        if (p->mode == 0)
            for (int64_t i = 0; i < p->m; i++)
                memset(p->out + i * p->out_row, 0, (size_t)p->n * sizeof(uint64_t));
        return 0;
    }
    return multiply(&tilings[mpc_isa()], p);
}

int mpc_matmul(uint64_t *out, const uint64_t *a, const uint64_t *b, int64_t batch, int64_t m, int64_t k, int64_t n, int64_t a_batch,
               int64_t a_row, int64_t a_col, int64_t b_batch, int64_t b_row, int64_t b_col, int mode) {
    int failed = 0;
    if (m == 0 || n == 0)
        return 0;
    for (int64_t i = 0; i < batch; i++) {
        product p = {out + i * m * n, a + i * a_batch, b + i * b_batch, m, k, n, n, 1, a_row, a_col, b_row, b_col, mode};
        failed |= multiply_any(&p);
    }
    return failed;
}
