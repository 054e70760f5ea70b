/* Bit planes: transposition, comparison leaves and gates.  Word-parallel; no branch and no address depends on data. */
#include <string.h>

#include "isa.h"
#include "native.h"

#define GRAIN 2048 /* words of each row that are worth a thread */
#define LANES 8    /* blocks of 64 elements that are transposed side by side */
#define BLOCK 512  /* words of each row of a gate that stay in the first-level cache */

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
typedef uint64_t lanes[LANES];

/* Three of the six stages on eight rows that stand `stride` apart: they stay in registers. */
INLINE void swap_blocks(lanes *rows, size_t stride, const int *shifts, const uint64_t *masks) {
    for (size_t lane = 0; lane < LANES; lane++) {
        uint64_t v[8];
        for (int i = 0; i < 8; i++)
            v[i] = rows[i * stride][lane];
        for (int stage = 0; stage < 3; stage++)
            for (int pair = 0; pair < 4; pair++) {
                int half = 4 >> stage, i = pair / half * 2 * half + pair % half;
                uint64_t swap = (v[i] >> shifts[stage] ^ v[i + half]) & masks[stage];
                v[i] ^= swap << shifts[stage];
                v[i + half] ^= swap;
            }
        for (int i = 0; i < 8; i++)
            rows[i * stride][lane] = v[i];
    }
}

INLINE void transpose(lanes rows[64]) {
    static const int coarse[3] = {32, 16, 8}, fine[3] = {4, 2, 1};
    static const uint64_t coarse_masks[3] = {0x00000000ffffffffu, 0x0000ffff0000ffffu, 0x00ff00ff00ff00ffu};
    static const uint64_t fine_masks[3] = {0x0f0f0f0f0f0f0f0fu, 0x3333333333333333u, 0x5555555555555555u};
    for (int i = 0; i < 8; i++)
        swap_blocks(rows + i, 8, coarse, coarse_masks);
    for (int i = 0; i < 64; i += 8)
        swap_blocks(rows + i, 1, fine, fine_masks);
}

typedef struct {
    uint64_t *planes;
    const uint64_t *x;
    size_t elements, words;
    int lo, hi;
} to_planes_args;

INLINE void to_planes_body(const to_planes_args *p, size_t start, size_t stop) {
    lanes rows[64];
    for (size_t word = start; word < stop; word += LANES) {
        size_t used = stop - word < LANES ? stop - word : LANES;
        for (size_t lane = 0; lane < used; lane++) {
            const uint64_t *x = p->x + 64 * (word + lane);
            size_t left = p->elements - 64 * (word + lane), count = left < 64 ? left : 64;
            for (size_t i = 0; i < count; i++)
                rows[i][lane] = x[i];
            for (size_t i = count; i < 64; i++)
                rows[i][lane] = 0;
        }
        for (size_t lane = used; lane < LANES; lane++)
            for (size_t i = 0; i < 64; i++)
                rows[i][lane] = 0;
        transpose(rows);
        for (int bit = p->lo; bit < p->hi; bit++)
            memcpy(p->planes + (size_t)(bit - p->lo) * p->words + word, rows[bit], used * sizeof(uint64_t));
    }
}
KERNEL(to_planes)

void mpc_to_planes(uint64_t *planes, const uint64_t *x, int64_t elements, int lo, int hi) {
    size_t words = ((size_t)elements + 63) / 64;
    to_planes_args args = {planes, x, (size_t)elements, words, lo, hi};
    mpc_run(to_planes_for, &args, words, GRAIN / 8);
}

/* ---- comparison leaves on chunks of four bits ---- */
typedef struct {
    uint64_t *rows;
    const uint64_t *rho;
    size_t words;
    int bits;
} leaf_deal_args;

INLINE void leaf_deal_chunk(uint64_t *restrict rows, const uint64_t *rho, size_t words, size_t start, size_t stop, int width) {
    INDEPENDENT
    for (size_t w = start; w < stop; w++) {
        uint64_t a = rho[w], b = width > 1 ? rho[words + w] : 0;
        uint64_t c = width > 2 ? rho[2 * words + w] : 0, d = width > 3 ? rho[3 * words + w] : 0;
        uint64_t ab = a & b, cd = c & d;
        rows[w] = a;
        if (width > 1) {
            rows[words + w] = b;
            rows[2 * words + w] = ab;
        }
        if (width > 2) {
            rows[3 * words + w] = c;
            rows[4 * words + w] = a & c;
            rows[5 * words + w] = b & c;
            rows[6 * words + w] = ab & c;
        }
        if (width > 3) {
            rows[7 * words + w] = d;
            rows[8 * words + w] = a & d;
            rows[9 * words + w] = b & d;
            rows[10 * words + w] = ab & d;
            rows[11 * words + w] = cd;
            rows[12 * words + w] = a & cd;
            rows[13 * words + w] = b & cd;
            rows[14 * words + w] = ab & cd;
        }
    }
}

INLINE void leaf_deal_body(const leaf_deal_args *p, size_t start, size_t stop) {
    uint64_t *rows = p->rows;
    const uint64_t *rho = p->rho;
    int left = p->bits;
    for (; left >= 4; left -= 4, rho += 4 * p->words, rows += 15 * p->words)
        leaf_deal_chunk(rows, rho, p->words, start, stop, 4);
    if (left == 3)
        leaf_deal_chunk(rows, rho, p->words, start, stop, 3);
    else if (left == 2)
        leaf_deal_chunk(rows, rho, p->words, start, stop, 2);
    else if (left == 1)
        leaf_deal_chunk(rows, rho, p->words, start, stop, 1);
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

/* The monomials t[s] of a chunk are summed over one bit at a time, from the highest: t'[s] = n_i·t[s] ^ t[s + {i}].  Before bit i is
   summed over, t[{i}] holds what n_i·rho_i is multiplied with in lt. */
INLINE void leaf_share_chunk(uint64_t *restrict lt, uint64_t *restrict eq, const uint64_t *c, const uint64_t *rows, size_t words,
                             size_t start, size_t stop, int width, uint64_t one) {
#define MONOMIAL(s) rows[((s) - 1) * words + w]
    INDEPENDENT
    for (size_t w = start; w < stop; w++) {
        uint64_t less = 0, t0 = one, t1 = MONOMIAL(1), t2 = 0, t3 = 0, t4 = 0, t5 = 0, t6 = 0, t7 = 0, n;
        if (width > 1) {
            t2 = MONOMIAL(2);
            t3 = MONOMIAL(3);
        }
        if (width > 2) {
            t4 = MONOMIAL(4);
            t5 = MONOMIAL(5);
            t6 = MONOMIAL(6);
            t7 = MONOMIAL(7);
        }
        if (width > 3) {
            n = ~c[3 * words + w];
            uint64_t t8 = MONOMIAL(8);
            less ^= n & t8;
            t0 = (n & t0) ^ t8;
            t1 = (n & t1) ^ MONOMIAL(9);
            t2 = (n & t2) ^ MONOMIAL(10);
            t3 = (n & t3) ^ MONOMIAL(11);
            t4 = (n & t4) ^ MONOMIAL(12);
            t5 = (n & t5) ^ MONOMIAL(13);
            t6 = (n & t6) ^ MONOMIAL(14);
            t7 = (n & t7) ^ MONOMIAL(15);
        }
        if (width > 2) {
            n = ~c[2 * words + w];
            less ^= n & t4;
            t0 = (n & t0) ^ t4;
            t1 = (n & t1) ^ t5;
            t2 = (n & t2) ^ t6;
            t3 = (n & t3) ^ t7;
        }
        if (width > 1) {
            n = ~c[words + w];
            less ^= n & t2;
            t0 = (n & t0) ^ t2;
            t1 = (n & t1) ^ t3;
        }
        n = ~c[w];
        lt[w] = less ^ (n & t1);
        eq[w] = (n & t0) ^ t1;
    }
#undef MONOMIAL
}

INLINE void leaf_share_body(const leaf_share_args *p, size_t start, size_t stop) {
    const size_t words = p->words;
    const uint64_t *c = p->c, *rows = p->rows, one = (uint64_t)0 - (uint64_t)p->first;
    uint64_t *lt = p->lt, *eq = p->eq;
    int left = p->bits;
    for (; left >= 4; left -= 4, c += 4 * words, rows += 15 * words, lt += words, eq += words)
        leaf_share_chunk(lt, eq, c, rows, words, start, stop, 4, one);
    if (left == 3)
        leaf_share_chunk(lt, eq, c, rows, words, start, stop, 3, one);
    else if (left == 2)
        leaf_share_chunk(lt, eq, c, rows, words, start, stop, 2, one);
    else if (left == 1)
        leaf_share_chunk(lt, eq, c, rows, words, start, stop, 1, one);
}
KERNEL(leaf_share)

void mpc_leaf_share(uint64_t *lt, uint64_t *eq, const uint64_t *c, const uint64_t *rows, int64_t words, int bits, int first) {
    leaf_share_args args = {lt, eq, c, rows, (size_t)words, bits, first != 0};
    mpc_run(leaf_share_for, &args, (size_t)words, GRAIN);
}

/* ---- comparison gates ---- */
typedef struct {
    uint64_t *rows;
    const uint64_t *masks;
    const uint8_t *sets;
    size_t words;
    int count;
    uint8_t row_of[256];
} gate_deal_args;

INLINE void and_into(uint64_t *restrict out, const uint64_t *x, const uint64_t *y, size_t start, size_t stop) {
    INDEPENDENT
    for (size_t w = start; w < stop; w++)
        out[w] = x[w] & y[w];
}

/* Where the product over a set of inputs stands: the mask itself for one input, else its dealt row. */
INLINE const uint64_t *product(int set, const uint64_t *masks, const uint64_t *rows, const uint8_t *row_of, size_t words) {
    return (set & (set - 1)) == 0 ? masks + (size_t)__builtin_ctz((unsigned)set) * words : rows + (size_t)row_of[set] * words;
}

static void index_rows(uint8_t row_of[256], const uint8_t *sets, int count) {
    memset(row_of, 0, 256);
    for (int i = 0; i < count; i++)
        row_of[sets[i]] = (uint8_t)i;
}

INLINE void gate_deal_body(const gate_deal_args *p, size_t start, size_t stop) {
    for (size_t from = start; from < stop; from += BLOCK) {
        size_t to = stop - from < BLOCK ? stop : from + BLOCK;
        for (int i = 0; i < p->count; i++) { /* a set comes after its subsets: one more input times what stands already */
            int set = p->sets[i], rest = set & (set - 1);
            and_into(p->rows + (size_t)i * p->words, product(set ^ rest, p->masks, p->rows, p->row_of, p->words),
                     product(rest, p->masks, p->rows, p->row_of, p->words), from, to);
        }
    }
}
KERNEL(gate_deal)

void mpc_gate_deal(uint64_t *rows, const uint64_t *masks, const uint8_t *sets, int count, int64_t words, int fan) {
    (void)fan;
    gate_deal_args args = {.rows = rows, .masks = masks, .sets = sets, .words = (size_t)words, .count = count};
    index_rows(args.row_of, sets, count);
    mpc_run(gate_deal_for, &args, (size_t)words, GRAIN);
}

typedef struct {
    uint64_t *out;
    const uint64_t *m, *masks, *rows;
    size_t words;
    int fan, with_eq, first;
    uint8_t row_of[256];
} gate_share_args;

/* prod_i (m_i ^ mask_i) = the products t[s] of masks, summed over one input at a time: t'[s] = m_i·t[s] ^ t[s + {i}]; t[0] is `one`. */
#define AT(s) ((s) ? t[s][w] : one)
#define FOLD1(s) ((m[0][w] & AT(s)) ^ t[(s) + 1][w])
#define FOLD2(s) ((m[1][w] & FOLD1(s)) ^ FOLD1((s) + 2))
#define FOLD3(s) ((m[2][w] & FOLD2(s)) ^ FOLD2((s) + 4))
#define FOLD4(s) ((m[3][w] & FOLD3(s)) ^ FOLD3((s) + 8))
#define FOLD(size)                                                                                                             \
    INLINE void fold##size(uint64_t *restrict out, const uint64_t *const *m, const uint64_t *const *t, uint64_t one, size_t start, \
                           size_t stop) {                                                                                      \
        INDEPENDENT                                                                                                            \
        for (size_t w = start; w < stop; w++)                                                                                  \
            out[w] ^= FOLD##size(0);                                                                                           \
    }
FOLD(1)
FOLD(2)
FOLD(3)
FOLD(4)

/* out ^= a share of the product of `count` inputs. */
INLINE void gate_term(const gate_share_args *p, uint64_t *out, const int *inputs, int count, size_t start, size_t stop) {
    const uint64_t *m[4], *t[16], one = (uint64_t)0 - (uint64_t)p->first;
    for (int i = 0; i < count; i++)
        m[i] = p->m + (size_t)inputs[i] * p->words;
    for (int s = 1; s < 1 << count; s++) {
        int set = 0;
        for (int i = 0; i < count; i++)
            set |= (s >> i & 1) << inputs[i];
        t[s] = product(set, p->masks, p->rows, p->row_of, p->words);
    }
    if (count == 1)
        fold1(out, m, t, one, start, stop);
    else if (count == 2)
        fold2(out, m, t, one, start, stop);
    else if (count == 3)
        fold3(out, m, t, one, start, stop);
    else
        fold4(out, m, t, one, start, stop);
}

INLINE void gate_share_body(const gate_share_args *p, size_t start, size_t stop) {
    const int fan = p->fan;
    uint64_t *lt = p->out, *eq = p->out + p->words;
    for (size_t from = start; from < stop; from += BLOCK) {
        size_t to = stop - from < BLOCK ? stop : from + BLOCK;
        int inputs[4];
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
    gate_share_args args = {out, m, masks, rows, (size_t)words, fan, with_eq, first != 0, {0}};
    index_rows(args.row_of, sets, count);
    mpc_run(gate_share_for, &args, (size_t)words, GRAIN);
}
