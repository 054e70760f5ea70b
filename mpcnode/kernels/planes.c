/* Bit planes: transposition, comparison leaves and gates.  Word-parallel; no branch and no address depends on data. */
#include <string.h>

#include "isa.h"
#include "native.h"

#define GRAIN 2048 /* words of each row that are worth a thread */
#define LINE 8     /* words of a cache line */
#define BLOCK 512  /* words of each row of a gate that stay in the first-level cache */

/* Rows are worked through by whole cache lines: rows often stand a multiple of 4 KiB apart, so that all their lines compete for one set of
   the first-level cache and a line is gone before its second half is asked for. */
typedef uint64_t line __attribute__((vector_size(LINE * 8), aligned(8), may_alias));

#define LOAD(row) (*(const line *)(row))
#define STORE(row, value) (*(line *)(row) = (value))

/* The last words of rows, less than a line, to or from lines of their own. */
INLINE void copy_rows(uint64_t *to, size_t to_words, const uint64_t *from, size_t from_words, int rows, size_t count) {
    for (int r = 0; r < rows; r++)
        for (size_t w = 0; w < count; w++)
            to[(size_t)r * to_words + w] = from[(size_t)r * from_words + w];
}

/* ---- bytes of 0 and 1 <-> bits ---- */
typedef struct {
    uint64_t *plane;
    const uint8_t *bits;
    size_t elements;
} pack_bits_args;

INLINE uint64_t pack_word(const uint8_t *bits) {
    uint64_t word = 0;
    for (int byte = 0; byte < 8; byte++) {
        uint64_t eight;
        memcpy(&eight, bits + 8 * byte, 8);
        /* the product brings bit 0 of byte i to bit 56 + i, without a carry */
        word |= (eight * 0x0102040810204080u >> 56) << (8 * byte);
    }
    return word;
}

INLINE void pack_bits_body(const pack_bits_args *p, size_t start, size_t stop) {
    size_t whole = p->elements / 64;
    for (size_t w = start; w < stop && w < whole; w++)
        p->plane[w] = pack_word(p->bits + 64 * w);
    if (start < stop && stop > whole) {
        uint8_t last[64] = {0};
        memcpy(last, p->bits + 64 * whole, p->elements % 64);
        p->plane[whole] = pack_word(last);
    }
}
KERNEL(pack_bits)

void mpc_pack_bits(uint64_t *plane, const uint8_t *bits, int64_t elements) {
    pack_bits_args args = {plane, bits, (size_t)elements};
    mpc_run(pack_bits_for, &args, ((size_t)elements + 63) / 64, GRAIN);
}

typedef struct {
    uint8_t *bits;
    const uint64_t *plane;
    size_t elements;
} unpack_bits_args;

INLINE void unpack_word(uint8_t *bits, uint64_t word) {
    for (int byte = 0; byte < 8; byte++) {
        uint64_t copies = (word >> (8 * byte) & 0xff) * 0x0101010101010101u;
        uint64_t one_each = copies & 0x8040201008040201u; /* byte i keeps bit i */
        uint64_t eight = (one_each + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
        memcpy(bits + 8 * byte, &eight, 8);
    }
}

INLINE void unpack_bits_body(const unpack_bits_args *p, size_t start, size_t stop) {
    size_t whole = p->elements / 64;
    for (size_t w = start; w < stop && w < whole; w++)
        unpack_word(p->bits + 64 * w, p->plane[w]);
    if (start < stop && stop > whole) {
        uint8_t last[64];
        unpack_word(last, p->plane[whole]);
        memcpy(p->bits + 64 * whole, last, p->elements % 64);
    }
}
KERNEL(unpack_bits)

void mpc_unpack_bits(uint8_t *bits, const uint64_t *plane, int64_t elements) {
    unpack_bits_args args = {bits, plane, (size_t)elements};
    mpc_run(unpack_bits_for, &args, ((size_t)elements + 63) / 64, GRAIN);
}

/* ---- numbers -> planes: 64 x 64 bit matrices, transposed by swapping ever smaller blocks ---- */
typedef uint64_t quad __attribute__((vector_size(32)));
typedef quad block[64][LINE / 4]; /* eight matrices side by side, one in each lane of a line */

/* Three of the six stages on eight rows that stand `stride` apart: they stay in registers. */
INLINE void swap_blocks(quad (*rows)[LINE / 4], const int stride, const int shift, const uint64_t *masks) {
    for (int half = 0; half < LINE / 4; half++) {
        quad v[8];
        UNROLL for (int i = 0; i < 8; i++)
            v[i] = rows[i * stride][half];
        UNROLL for (int stage = 0; stage < 3; stage++)
            UNROLL for (int pair = 0; pair < 4; pair++) {
                const int by = shift >> stage, apart = 4 >> stage, i = pair / apart * 2 * apart + pair % apart;
                quad swap = (v[i] >> by ^ v[i + apart]) & masks[stage];
                v[i] ^= swap << by;
                v[i + apart] ^= swap;
            }
        UNROLL for (int i = 0; i < 8; i++)
            rows[i * stride][half] = v[i];
    }
}

INLINE void transpose(block rows) {
    static const uint64_t coarse[3] = {0x00000000ffffffffu, 0x0000ffff0000ffffu, 0x00ff00ff00ff00ffu};
    static const uint64_t fine[3] = {0x0f0f0f0f0f0f0f0fu, 0x3333333333333333u, 0x5555555555555555u};
    for (int i = 0; i < 8; i++)
        swap_blocks(rows + i, 8, 32, coarse);
    for (int i = 0; i < 64; i += 8)
        swap_blocks(rows + i, 1, 4, fine);
}

typedef struct {
    uint64_t *planes;
    const uint64_t *x;
    size_t elements, words;
    int lo, hi;
} to_planes_args;

/* Up to 512 elements -> up to a line of each plane. */
INLINE void planes_line(const to_planes_args *p, size_t word, size_t used) {
    block rows;
    uint64_t *lanes = (uint64_t *)rows;
    size_t left = p->elements - 64 * word;
    if (left >= 64 * LINE)
        for (size_t i = 0; i < 64; i++)
            for (size_t lane = 0; lane < LINE; lane++)
                lanes[i * LINE + lane] = p->x[64 * (word + lane) + i];
    else
        for (size_t i = 0; i < 64; i++)
            for (size_t lane = 0; lane < LINE; lane++)
                lanes[i * LINE + lane] = 64 * lane + i < left ? p->x[64 * (word + lane) + i] : 0;
    transpose(rows);
    for (int bit = p->lo; bit < p->hi; bit++) {
        uint64_t *to = p->planes + (size_t)(bit - p->lo) * p->words + word;
        if (used == LINE)
            STORE(to, LOAD(lanes + bit * LINE));
        else
            copy_rows(to, LINE, lanes + bit * LINE, LINE, 1, used);
    }
}

INLINE void to_planes_body(const to_planes_args *p, size_t start, size_t stop) {
    for (size_t word = start; word < stop; word += LINE)
        planes_line(p, word, stop - word < LINE ? stop - word : LINE);
}
KERNEL(to_planes)

void mpc_to_planes(uint64_t *planes, const uint64_t *x, int64_t elements, int lo, int hi) {
    size_t words = ((size_t)elements + 63) / 64;
    to_planes_args args = {planes, x, (size_t)elements, words, lo, hi};
    mpc_run(to_planes_for, &args, words, GRAIN / 8);
}

/* ---- comparison leaves on chunks of four bits ---- */
#define CHUNK 4

typedef struct {
    uint64_t *rows;
    const uint64_t *rho;
    size_t words;
    int bits;
} leaf_deal_args;

/* A line of each monomial of a chunk: row s - 1 is the product of the bits in the set s. */
INLINE void deal_line(uint64_t *rows, const uint64_t *rho, size_t words, const int width) {
    line product[1 << CHUNK];
    UNROLL for (int s = 1; s < 1 << width; s++) {
        const int top = s < 2 ? 0 : s < 4 ? 1 : s < 8 ? 2 : 3, rest = s ^ 1 << top;
        if (rest)
            product[s] = product[1 << top] & product[rest];
        else
            product[s] = LOAD(rho + (size_t)top * words);
        STORE(rows + (size_t)(s - 1) * words, product[s]);
    }
}

INLINE void deal_chunk(uint64_t *rows, const uint64_t *rho, size_t words, size_t start, size_t stop, const int width) {
    size_t w = start;
    for (; w + LINE <= stop; w += LINE)
        deal_line(rows + w, rho + w, words, width);
    if (w < stop) {
        uint64_t in[CHUNK * LINE] = {0}, out[15 * LINE];
        copy_rows(in, LINE, rho + w, words, width, stop - w);
        deal_line(out, in, LINE, width);
        copy_rows(rows + w, words, out, LINE, (1 << width) - 1, stop - w);
    }
}

INLINE void leaf_deal_body(const leaf_deal_args *p, size_t start, size_t stop) {
    uint64_t *rows = p->rows;
    const uint64_t *rho = p->rho;
    int left = p->bits;
    for (; left >= CHUNK; left -= CHUNK, rho += CHUNK * p->words, rows += 15 * p->words)
        deal_chunk(rows, rho, p->words, start, stop, CHUNK);
    if (left == 3)
        deal_chunk(rows, rho, p->words, start, stop, 3);
    else if (left == 2)
        deal_chunk(rows, rho, p->words, start, stop, 2);
    else if (left == 1)
        deal_chunk(rows, rho, p->words, start, stop, 1);
}
KERNEL(leaf_deal)

void mpc_leaf_deal(uint64_t *rows, const uint64_t *rho, int64_t words, int bits) {
    leaf_deal_args args = {rows, rho, (size_t)words, bits};
    mpc_run(leaf_deal_for, &args, (size_t)words, GRAIN);
}

typedef struct {
    uint64_t *lt, *eq;
    const uint64_t *c, *rows;
    size_t words;
    int bits, first;
} leaf_share_args;

/* A line of lt and eq of a chunk.  Its monomials t[s] are summed over one bit at a time, from the highest: t'[s] = n_i·t[s] ^ t[s + {i}].
   Before bit i is summed over, t[{i}] holds what n_i·rho_i is multiplied with in lt. */
INLINE void share_line(uint64_t *lt, uint64_t *eq, const uint64_t *c, const uint64_t *rows, size_t words, const int width, uint64_t one) {
    line t[1 << CHUNK], less = {0};
    t[0] = less + one;
    UNROLL for (int s = 1; s < 1 << width; s++)
        t[s] = LOAD(rows + (size_t)(s - 1) * words);
    UNROLL for (int i = width - 1; i >= 0; i--) {
        line n = ~LOAD(c + (size_t)i * words);
        less ^= n & t[1 << i];
        UNROLL for (int s = 0; s < 1 << i; s++)
            t[s] = (n & t[s]) ^ t[s + (1 << i)];
    }
    STORE(lt, less);
    STORE(eq, t[0]);
}

INLINE void share_chunk(uint64_t *lt, uint64_t *eq, const uint64_t *c, const uint64_t *rows, size_t words, size_t start, size_t stop,
                        const int width, uint64_t one) {
    size_t w = start;
    for (; w + LINE <= stop; w += LINE)
        share_line(lt + w, eq + w, c + w, rows + w, words, width, one);
    if (w < stop) {
        uint64_t in[CHUNK * LINE] = {0}, monomials[15 * LINE] = {0}, out[2 * LINE];
        copy_rows(in, LINE, c + w, words, width, stop - w);
        copy_rows(monomials, LINE, rows + w, words, (1 << width) - 1, stop - w);
        share_line(out, out + LINE, in, monomials, LINE, width, one);
        copy_rows(lt + w, words, out, LINE, 1, stop - w);
        copy_rows(eq + w, words, out + LINE, LINE, 1, stop - w);
    }
}

INLINE void leaf_share_body(const leaf_share_args *p, size_t start, size_t stop) {
    const size_t words = p->words;
    const uint64_t *c = p->c, *rows = p->rows, one = (uint64_t)0 - (uint64_t)p->first;
    uint64_t *lt = p->lt, *eq = p->eq;
    int left = p->bits;
    for (; left >= CHUNK; left -= CHUNK, c += CHUNK * words, rows += 15 * words, lt += words, eq += words)
        share_chunk(lt, eq, c, rows, words, start, stop, CHUNK, one);
    if (left == 3)
        share_chunk(lt, eq, c, rows, words, start, stop, 3, one);
    else if (left == 2)
        share_chunk(lt, eq, c, rows, words, start, stop, 2, one);
    else if (left == 1)
        share_chunk(lt, eq, c, rows, words, start, stop, 1, one);
}
KERNEL(leaf_share)

void mpc_leaf_share(uint64_t *lt, uint64_t *eq, const uint64_t *c, const uint64_t *rows, int64_t words, int bits, int first) {
    leaf_share_args args = {lt, eq, c, rows, (size_t)words, bits, first != 0};
    mpc_run(leaf_share_for, &args, (size_t)words, GRAIN);
}

/* ---- comparison gates ---- */
#define FAN 4

/* Where the product over a set of inputs stands: the mask itself for one input, else its dealt row. */
typedef struct {
    const uint64_t *masks, *rows;
    size_t words;
    uint8_t row_of[1 << 2 * FAN];
} products;

static void index_rows(products *p, const uint8_t *sets, int count) {
    memset(p->row_of, 0, sizeof p->row_of);
    for (int i = 0; i < count; i++)
        p->row_of[sets[i]] = (uint8_t)i;
}

INLINE const uint64_t *product_over(const products *p, int set) {
    return (set & (set - 1)) == 0 ? p->masks + (size_t)__builtin_ctz((unsigned)set) * p->words : p->rows + p->row_of[set] * p->words;
}

typedef struct {
    products of;
    uint64_t *rows;
    const uint8_t *sets;
    int count;
} gate_deal_args;

INLINE void and_into(uint64_t *restrict out, const uint64_t *x, const uint64_t *y, size_t start, size_t stop) {
    INDEPENDENT
    for (size_t w = start; w < stop; w++)
        out[w] = x[w] & y[w];
}

INLINE void gate_deal_body(const gate_deal_args *p, size_t start, size_t stop) {
    for (size_t from = start; from < stop; from += BLOCK) {
        size_t to = stop - from < BLOCK ? stop : from + BLOCK;
        for (int i = 0; i < p->count; i++) { /* a set comes after its subsets: one more input times what stands already */
            int set = p->sets[i], rest = set & (set - 1);
            and_into(p->rows + (size_t)i * p->of.words, product_over(&p->of, set ^ rest), product_over(&p->of, rest), from, to);
        }
    }
}
KERNEL(gate_deal)

void mpc_gate_deal(uint64_t *rows, const uint64_t *masks, const uint8_t *sets, int count, int64_t words) {
    gate_deal_args args = {.of = {masks, rows, (size_t)words, {0}}, .rows = rows, .sets = sets, .count = count};
    index_rows(&args.of, sets, count);
    mpc_run(gate_deal_for, &args, (size_t)words, GRAIN);
}

typedef struct {
    products of;
    uint64_t *out;
    const uint64_t *m;
    int fan, with_eq, first;
} gate_share_args;

/* out ^= prod_i (m_i ^ mask_i), a line of it.  The products t[s] of masks are summed over one input at a time:
   t'[s] = m_i·t[s] ^ t[s + {i}]; t[{}] is one. */
INLINE void term_line(uint64_t *out, const uint64_t *const *m, const uint64_t *const *t, size_t w, const int inputs, uint64_t one) {
    line sum[1 << FAN], zero = {0};
    sum[0] = zero + one;
    UNROLL for (int s = 1; s < 1 << inputs; s++)
        sum[s] = LOAD(t[s] + w);
    UNROLL for (int i = inputs - 1; i >= 0; i--) {
        line x = LOAD(m[i] + w);
        UNROLL for (int s = 0; s < 1 << i; s++)
            sum[s] = (x & sum[s]) ^ sum[s + (1 << i)];
    }
    STORE(out + w, LOAD(out + w) ^ sum[0]);
}

INLINE void term(uint64_t *out, const uint64_t **m, const uint64_t **t, size_t start, size_t stop, const int inputs, uint64_t one) {
    size_t w = start;
    for (; w + LINE <= stop; w += LINE)
        term_line(out, m, t, w, inputs, one);
    if (w < stop) {
        uint64_t last[1 + FAN + (1 << FAN)][LINE] = {{0}};
        copy_rows(last[0], LINE, out + w, 0, 1, stop - w);
        for (int i = 0; i < inputs; i++) {
            copy_rows(last[1 + i], LINE, m[i] + w, 0, 1, stop - w);
            m[i] = last[1 + i];
        }
        for (int s = 1; s < 1 << inputs; s++) {
            copy_rows(last[1 + FAN + s], LINE, t[s] + w, 0, 1, stop - w);
            t[s] = last[1 + FAN + s];
        }
        term_line(last[0], m, t, 0, inputs, one);
        copy_rows(out + w, 0, last[0], LINE, 1, stop - w);
    }
}

/* out ^= a share of the product of `count` inputs. */
INLINE void gate_term(const gate_share_args *p, uint64_t *out, const int *inputs, int count, size_t start, size_t stop) {
    const uint64_t *m[FAN], *t[1 << FAN], one = (uint64_t)0 - (uint64_t)p->first;
    for (int i = 0; i < count; i++)
        m[i] = p->m + (size_t)inputs[i] * p->of.words;
    for (int s = 1; s < 1 << count; s++) {
        int set = 0;
        for (int i = 0; i < count; i++)
            set |= (s >> i & 1) << inputs[i];
        t[s] = product_over(&p->of, set);
    }
    if (count == 1)
        term(out, m, t, start, stop, 1, one);
    else if (count == 2)
        term(out, m, t, start, stop, 2, one);
    else if (count == 3)
        term(out, m, t, start, stop, 3, one);
    else
        term(out, m, t, start, stop, 4, one);
}

INLINE void gate_share_body(const gate_share_args *p, size_t start, size_t stop) {
    const int fan = p->fan;
    uint64_t *lt = p->out, *eq = p->out + p->of.words;
    for (size_t from = start; from < stop; from += BLOCK) {
        size_t to = stop - from < BLOCK ? stop : from + BLOCK;
        int inputs[FAN];
        memset(lt + from, 0, (to - from) * sizeof(uint64_t));
        for (int k = fan - 1; k >= 0; k--) { /* lt_k·eq_{k+1}···eq_{fan-1} */
            inputs[0] = k;
            for (int j = k + 1; j < fan; j++)
                inputs[j - k] = fan + j;
            gate_term(p, lt, inputs, fan - k, from, to);
        }
        if (p->with_eq) {
            memset(eq + from, 0, (to - from) * sizeof(uint64_t));
            for (int j = 0; j < fan; j++)
                inputs[j] = fan + j;
            gate_term(p, eq, inputs, fan, from, to);
        }
    }
}
KERNEL(gate_share)

void mpc_gate_share(uint64_t *out, const uint64_t *m, const uint64_t *masks, const uint64_t *rows, const uint8_t *sets, int count,
                    int64_t words, int fan, int with_eq, int first) {
    gate_share_args args = {{masks, rows, (size_t)words, {0}}, out, m, fan, with_eq, first != 0};
    index_rows(&args.of, sets, count);
    mpc_run(gate_share_for, &args, (size_t)words, GRAIN);
}
