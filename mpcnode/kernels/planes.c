/* Bit planes: transposition, comparison leaves and gates.  Word-parallel; no branch and no address depends on data. */
#include <string.h>

#include "isa.h"
#include "native.h"

#define GRAIN 2048 /* words of each row that are worth a thread */
#define LINE 8     /* words of a cache line */
#define BLOCK 128  /* words of each row that are worked on at a time where rows are staged */

/* Rows that stand a multiple of 2 KiB apart compete for a few sets of the first-level cache: a loop over a dozen of
   them is three times slower.  Such rows are staged: copied, a block of one after the other, to or from a buffer in
   which they stand close together. */
INLINE int collide(size_t words) { return words % 256 == 0; }

INLINE void copy_rows(uint64_t *to, size_t to_words, const uint64_t *from, size_t from_words, int rows, size_t count) {
    for (int r = 0; r < rows; r++)
        memcpy(to + (size_t)r * to_words, from + (size_t)r * from_words, count * sizeof(uint64_t));
}

/* ---- bytes of 0 and 1 <-> bits ---- */
typedef uint64_t quad __attribute__((vector_size(32), may_alias));

typedef struct {
    uint64_t *plane;
    const uint8_t *bits;
    size_t elements;
} pack_bits_args;

INLINE uint64_t pack_word(const uint8_t *bits) {
    const quad place = {0, 8, 16, 24};
    uint64_t word = 0;
    for (int half = 0; half < 2; half++) { /* bit 0 of byte i moves to bit i, in ever larger groups */
        quad x;
        memcpy(&x, bits + 32 * half, sizeof x);
        x = (x | x >> 7) & 0x0003000300030003u;
        x = (x | x >> 14) & 0x0000000f0000000fu;
        x = ((x | x >> 28) & 0xff) << place;
        word |= (x[0] | x[1] | x[2] | x[3]) << (32 * half);
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

void mpc_pack_bits(uint64_t *planes, const uint8_t *bits, int64_t rows, int64_t elements) {
    const size_t words = ((size_t)elements + 63) / 64;
    for (; rows > 0; rows--, planes += words, bits += elements) {
        pack_bits_args args = {planes, bits, (size_t)elements};
        mpc_run(pack_bits_for, &args, words, GRAIN);
    }
}

typedef struct {
    uint8_t *bits;
    const uint64_t *plane;
    size_t elements;
} unpack_bits_args;

INLINE void unpack_word(uint8_t *bits, uint64_t word) {
    const quad place = {0, 8, 16, 24};
    for (int half = 0; half < 2; half++) { /* the same steps, backwards */
        quad x = ((quad){0} + (word >> (32 * half))) >> place & 0xff;
        x = (x | x << 28) & 0x0000000f0000000fu;
        x = (x | x << 14) & 0x0003000300030003u;
        x = (x | x << 7) & 0x0101010101010101u;
        memcpy(bits + 32 * half, &x, sizeof x);
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
typedef quad block[64][LINE / 4]; /* eight matrices side by side, one in each lane of a line */

/* Three of the six stages on eight rows that stand `stride` apart: they stay in registers. */
INLINE void swap_blocks(quad (*rows)[LINE / 4], const int stride, const int shift, const uint64_t *masks) {
    for (int half = 0; half < LINE / 4; half++) {
        quad v[8];
        UNROLL
        for (int i = 0; i < 8; i++)
            v[i] = rows[i * stride][half];
        UNROLL
        for (int stage = 0; stage < 3; stage++) {
            UNROLL
            for (int pair = 0; pair < 4; pair++) {
                const int by = shift >> stage, apart = 4 >> stage, i = pair / apart * 2 * apart + pair % apart;
                quad swap = (v[i] >> by ^ v[i + apart]) & masks[stage];
                v[i] ^= swap << by;
                v[i + apart] ^= swap;
            }
        }
        UNROLL
        for (int i = 0; i < 8; i++)
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
            memcpy(to, lanes + bit * LINE, LINE * sizeof(uint64_t));
        else
            memcpy(to, lanes + bit * LINE, used * sizeof(uint64_t));
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

/* ---- conjunctions of up to eight bits ---- */
#define MOST 8

/* The inputs are rows: the first of them, and the others one after the other. */
typedef struct {
    uint64_t *rows;
    const uint64_t *head, *rest;
    size_t words;
    int fan;
} and_deal_args;

/* The row of a set of two and more, among such sets in the order of their numbers. */
INLINE size_t row_of_set(unsigned set) { return set - 2 - (31 - (unsigned)__builtin_clz(set)); }

INLINE const uint64_t *input(const uint64_t *head, const uint64_t *rest, size_t words, unsigned i) {
    return i == 0 ? head : rest + (i - 1) * words;
}

INLINE const uint64_t *masks_over(const uint64_t *head, const uint64_t *rest, const uint64_t *rows, size_t words,
                                  unsigned set) {
    return (set & (set - 1)) == 0 ? input(head, rest, words, 31 - (unsigned)__builtin_clz(set))
                                  : rows + row_of_set(set) * words;
}

INLINE void and_deal_body(const and_deal_args *p, size_t start, size_t stop) {
    for (size_t from = start; from < stop; from += BLOCK) {
        size_t to = stop - from < BLOCK ? stop : from + BLOCK;
        for (unsigned s = 3; s < 1u << p->fan; s++) {
            if ((s & (s - 1)) == 0)
                continue;
            unsigned top = 31 - (unsigned)__builtin_clz(s);
            const uint64_t *x = input(p->head, p->rest, p->words, top);
            const uint64_t *y = masks_over(p->head, p->rest, p->rows, p->words, s ^ 1u << top);
            uint64_t *restrict out = p->rows + row_of_set(s) * p->words;
            INDEPENDENT
            for (size_t w = from; w < to; w++)
                out[w] = x[w] & y[w];
        }
    }
}
KERNEL(and_deal)

void mpc_and_deal(uint64_t *rows, const uint64_t *masks, int64_t words, int fan) {
    and_deal_args args = {rows, masks, masks + words, (size_t)words, fan};
    mpc_run(and_deal_for, &args, (size_t)words, GRAIN);
}

typedef struct {
    uint64_t *out;
    const uint64_t *m_head, *m_rest, *head, *rest, *rows;
    size_t words;
    int fan, first, more; /* more: on top of what stands there */
} and_share_args;

/* A line of words at a time: the products t[s] of masks are summed over one bit after the other,
   t'[s] = m_i·t[s] ^ t[s + {i}]. */
INLINE void and_line(const and_share_args *p, size_t word, size_t used) {
    uint64_t t[1 << MOST][LINE];
    for (unsigned s = 0; s < 1u << p->fan; s++) {
        const uint64_t *from = s ? masks_over(p->head, p->rest, p->rows, p->words, s) + word : 0;
        for (size_t w = 0; w < LINE; w++)
            t[s][w] = s == 0 ? (uint64_t)0 - (uint64_t)p->first : w < used ? from[w] : 0;
    }
    for (int i = p->fan - 1; i >= 0; i--) {
        const uint64_t *m = input(p->m_head, p->m_rest, p->words, (unsigned)i) + word;
        uint64_t x[LINE] = {0};
        for (size_t w = 0; w < used; w++)
            x[w] = m[w];
        for (unsigned s = 0; s < 1u << i; s++)
            for (size_t w = 0; w < LINE; w++)
                t[s][w] = (x[w] & t[s][w]) ^ t[s + (1u << i)][w];
    }
    for (size_t w = 0; w < used; w++)
        p->out[word + w] = p->more ? p->out[word + w] ^ t[0][w] : t[0][w];
}

INLINE void and_share_body(const and_share_args *p, size_t start, size_t stop) {
    for (size_t word = start; word < stop; word += LINE)
        and_line(p, word, stop - word < LINE ? stop - word : LINE);
}
KERNEL(and_share)

void mpc_and_share(uint64_t *out, const uint64_t *m, const uint64_t *masks, const uint64_t *rows, int64_t words, int fan,
                   int first) {
    and_share_args args = {out, m, m + words, masks, masks + words, rows, (size_t)words, fan, first != 0, 0};
    mpc_run(and_share_for, &args, (size_t)words, GRAIN);
}

/* ---- a gate for few words: a conjunction for each of its products lt_k·eq_{k+1}···eq_{fan-1} ---- */
static size_t set_count(int fan) { return ((size_t)1 << fan) - 1 - (size_t)fan; }

void mpc_wide_gate_deal(uint64_t *rows, const uint64_t *masks, int64_t words, int fan) {
    for (int k = 0; k < fan - 1; k++) {
        and_deal_args args = {rows, masks + k * words, masks + (fan + k) * words, (size_t)words, fan - k};
        mpc_run(and_deal_for, &args, (size_t)words, GRAIN);
        rows += set_count(fan - k) * (size_t)words;
    }
}

void mpc_wide_gate_share(uint64_t *out, const uint64_t *m, const uint64_t *masks, const uint64_t *rows, int64_t words,
                         int fan, int first) {
    const int64_t last = (fan - 1) * words;
    for (int64_t w = 0; w < words; w++)
        out[w] = masks[last + w] ^ (first ? m[last + w] : 0);
    for (int k = 0; k < fan - 1; k++) {
        const int64_t head = k * words, rest = (fan + k) * words;
        and_share_args args = {out,   m + head,     m + rest, masks + head, masks + rest, rows, (size_t)words,
                               fan - k, first != 0, 1};
        mpc_run(and_share_for, &args, (size_t)words, GRAIN);
        rows += set_count(fan - k) * (size_t)words;
    }
}

/* ---- comparison leaves on chunks of four bits ---- */
#define CHUNK 4
#define MONOMIALS ((1 << CHUNK) - 1)

typedef struct {
    uint64_t *rows;
    const uint64_t *rho;
    size_t words;
    int bits;
} leaf_deal_args;

/* The monomials of a chunk: row s - 1 is the product of the bits in the set s. */
INLINE void deal_words(uint64_t *restrict rows, size_t out_words, const uint64_t *rho, size_t words, size_t count,
                       const int width) {
    INDEPENDENT
    for (size_t w = 0; w < count; w++) {
        uint64_t product[1 << CHUNK];
        UNROLL
        for (int s = 1; s < 1 << width; s++) {
            const int top = s < 2 ? 0 : s < 4 ? 1 : s < 8 ? 2 : 3, rest = s ^ 1 << top;
            product[s] = rest ? product[1 << top] & product[rest] : rho[(size_t)top * words + w];
            rows[(size_t)(s - 1) * out_words + w] = product[s];
        }
    }
}

INLINE void deal_chunk(uint64_t *rows, const uint64_t *rho, size_t words, size_t start, size_t stop, const int width) {
    if (!collide(words)) {
        deal_words(rows + start, words, rho + start, words, stop - start, width);
        return;
    }
    for (size_t w = start; w < stop; w += BLOCK) {
        uint64_t staged[MONOMIALS * BLOCK];
        size_t count = stop - w < BLOCK ? stop - w : BLOCK;
        deal_words(staged, BLOCK, rho + w, words, count, width);
        copy_rows(rows + w, words, staged, BLOCK, (1 << width) - 1, count);
    }
}

INLINE void leaf_deal_body(const leaf_deal_args *p, size_t start, size_t stop) {
    uint64_t *rows = p->rows;
    const uint64_t *rho = p->rho;
    int left = p->bits;
    for (; left >= CHUNK; left -= CHUNK, rho += CHUNK * p->words, rows += MONOMIALS * p->words)
        deal_chunk(rows, rho, p->words, start, stop, CHUNK);
    if (left == 3)
        deal_chunk(rows, rho, p->words, start, stop, 3);
    else if (left == 2)
        deal_chunk(rows, rho, p->words, start, stop, 2);
    else if (left == 1)
        deal_chunk(rows, rho, p->words, start, stop, 1);
}
KERNEL(leaf_deal)

/* Chunks wider than CHUNK, for few elements: a block of words at a time, row after row. */
typedef struct {
    uint64_t *rows;
    const uint64_t *rho;
    size_t words;
    int bits, chunk;
} wide_deal_args;

INLINE void wide_deal_body(const wide_deal_args *p, size_t start, size_t stop) {
    uint64_t *rows = p->rows;
    for (int lo = 0; lo < p->bits; lo += p->chunk) {
        const unsigned width = (unsigned)(p->bits - lo < p->chunk ? p->bits - lo : p->chunk);
        for (size_t from = start; from < stop; from += BLOCK) {
            const size_t to = stop - from < BLOCK ? stop : from + BLOCK;
            for (unsigned s = 1; s < 1u << width; s++) {
                const unsigned top = 31 - (unsigned)__builtin_clz(s), rest = s ^ 1u << top;
                const uint64_t *x = p->rho + ((size_t)lo + top) * p->words;
                const uint64_t *y = rest ? rows + (size_t)(rest - 1) * p->words : x;
                uint64_t *restrict out = rows + (size_t)(s - 1) * p->words;
                INDEPENDENT
                for (size_t w = from; w < to; w++)
                    out[w] = x[w] & y[w];
            }
        }
        rows += (((size_t)1 << width) - 1) * p->words;
    }
}
KERNEL(wide_deal)

void mpc_leaf_deal(uint64_t *rows, const uint64_t *rho, int64_t words, int bits, int chunk) {
    if (chunk == CHUNK) {
        leaf_deal_args args = {rows, rho, (size_t)words, bits};
        mpc_run(leaf_deal_for, &args, (size_t)words, GRAIN);
    } else {
        wide_deal_args args = {rows, rho, (size_t)words, bits, chunk};
        mpc_run(wide_deal_for, &args, (size_t)words, GRAIN);
    }
}

typedef struct {
    uint64_t *lt, *eq;
    const uint64_t *c, *rows;
    size_t words, stride; /* stride: of lt and eq */
    int bits, first;
} leaf_share_args;

/* lt and eq of a chunk.  Its monomials t[s] are summed over one bit at a time, from the highest:
   t'[s] = n_i·t[s] ^ t[s + {i}].  Before bit i is summed over, t[{i}] holds what n_i·rho_i is multiplied with in lt. */
INLINE void share_words(uint64_t *restrict lt, uint64_t *restrict eq, const uint64_t *c, size_t words,
                        const uint64_t *rows, size_t in_words, size_t count, const int width, uint64_t one) {
    INDEPENDENT
    for (size_t w = 0; w < count; w++) {
        uint64_t t[1 << CHUNK], less = 0;
        t[0] = one;
        UNROLL
        for (int s = 1; s < 1 << width; s++)
            t[s] = rows[(size_t)(s - 1) * in_words + w];
        UNROLL
        for (int i = width - 1; i >= 0; i--) {
            uint64_t n = ~c[(size_t)i * words + w];
            less ^= n & t[1 << i];
            UNROLL
            for (int s = 0; s < 1 << i; s++)
                t[s] = (n & t[s]) ^ t[s + (1 << i)];
        }
        lt[w] = less;
        eq[w] = t[0];
    }
}

INLINE void share_chunk(uint64_t *lt, uint64_t *eq, const uint64_t *c, const uint64_t *rows, size_t words, size_t start,
                        size_t stop, const int width, uint64_t one) {
    if (!collide(words)) {
        share_words(lt + start, eq + start, c + start, words, rows + start, words, stop - start, width, one);
        return;
    }
    for (size_t w = start; w < stop; w += BLOCK) {
        uint64_t staged[MONOMIALS * BLOCK];
        size_t count = stop - w < BLOCK ? stop - w : BLOCK;
        copy_rows(staged, BLOCK, rows + w, words, (1 << width) - 1, count);
        share_words(lt + w, eq + w, c + w, words, staged, BLOCK, count, width, one);
    }
}

INLINE void leaf_share_body(const leaf_share_args *p, size_t start, size_t stop) {
    const size_t words = p->words;
    const uint64_t *c = p->c, *rows = p->rows, one = (uint64_t)0 - (uint64_t)p->first;
    uint64_t *lt = p->lt, *eq = p->eq;
    int left = p->bits;
    for (; left >= CHUNK; left -= CHUNK, c += CHUNK * words, rows += MONOMIALS * words, lt += p->stride, eq += p->stride)
        share_chunk(lt, eq, c, rows, words, start, stop, CHUNK, one);
    if (left == 3)
        share_chunk(lt, eq, c, rows, words, start, stop, 3, one);
    else if (left == 2)
        share_chunk(lt, eq, c, rows, words, start, stop, 2, one);
    else if (left == 1)
        share_chunk(lt, eq, c, rows, words, start, stop, 1, one);
}
KERNEL(leaf_share)

typedef struct {
    uint64_t *lt, *eq;
    const uint64_t *c, *rows;
    size_t words, stride;
    int bits, chunk, first;
} wide_share_args;

/* As share_words, for a line of words and a chunk of any width. */
INLINE void wide_line(const wide_share_args *p, uint64_t *lt, uint64_t *eq, const uint64_t *c, const uint64_t *rows,
                      int width, size_t used) {
    uint64_t t[1 << MOST][LINE], less[LINE] = {0};
    for (size_t w = 0; w < LINE; w++)
        t[0][w] = (uint64_t)0 - (uint64_t)p->first;
    for (int s = 1; s < 1 << width; s++)
        for (size_t w = 0; w < LINE; w++)
            t[s][w] = w < used ? rows[(size_t)(s - 1) * p->words + w] : 0;
    for (int i = width - 1; i >= 0; i--) {
        uint64_t n[LINE] = {0};
        for (size_t w = 0; w < used; w++)
            n[w] = ~c[(size_t)i * p->words + w];
        for (size_t w = 0; w < LINE; w++)
            less[w] ^= n[w] & t[1 << i][w];
        for (int s = 0; s < 1 << i; s++)
            for (size_t w = 0; w < LINE; w++)
                t[s][w] = (n[w] & t[s][w]) ^ t[s + (1 << i)][w];
    }
    memcpy(lt, less, used * sizeof(uint64_t));
    memcpy(eq, t[0], used * sizeof(uint64_t));
}

INLINE void wide_share_body(const wide_share_args *p, size_t start, size_t stop) {
    const size_t words = p->words;
    const uint64_t *rows = p->rows;
    for (int lo = 0, k = 0; lo < p->bits; lo += p->chunk, k++) {
        const int width = p->bits - lo < p->chunk ? p->bits - lo : p->chunk;
        for (size_t w = start; w < stop; w += LINE)
            wide_line(p, p->lt + (size_t)k * p->stride + w, p->eq + (size_t)k * p->stride + w, p->c + (size_t)lo * words + w,
                      rows + w, width, stop - w < LINE ? stop - w : LINE);
        rows += (((size_t)1 << width) - 1) * words;
    }
}
KERNEL(wide_share)

static void leaf_share(uint64_t *lt, uint64_t *eq, const uint64_t *c, const uint64_t *rows, size_t words, size_t stride,
                       int bits, int chunk, int first) {
    if (chunk == CHUNK) {
        leaf_share_args args = {lt, eq, c, rows, words, stride, bits, first != 0};
        mpc_run(leaf_share_for, &args, words, GRAIN);
    } else {
        wide_share_args args = {lt, eq, c, rows, words, stride, bits, chunk, first != 0};
        mpc_run(wide_share_for, &args, words, GRAIN);
    }
}

void mpc_leaf_share(uint64_t *lt, uint64_t *eq, const uint64_t *c, const uint64_t *rows, int64_t words, int bits,
                    int chunk, int first) {
    leaf_share(lt, eq, c, rows, (size_t)words, (size_t)words, bits, chunk, first);
}

/* The lowest chunk's eq is not wanted: it is written where the highest one's lt will be, or, if that is the same chunk,
   where the dealt row will be. */
void mpc_leaves(uint64_t *out, uint64_t *planes, uint64_t *moved, const uint64_t *x, const uint64_t *cuts, int64_t count,
                const uint64_t *rows, int64_t dealt, int64_t elements, int lo, int top, int chunk, int first) {
    const int bits = top - lo, nodes = (bits + chunk - 1) / chunk;
    const size_t words = ((size_t)elements + 63) / 64, stride = (size_t)count * words;
    for (int64_t k = 0; k < count; k++, out += words) {
        for (int64_t i = 0; i < elements; i++)
            moved[i] = x[i] - cuts[k];
        mpc_to_planes(planes, moved, elements, lo, top + 1);
        uint64_t *eq = out + (size_t)(nodes > 1 ? nodes - 1 : 1) * stride;
        leaf_share(out, eq, planes, rows, words, stride, bits, chunk, first);
        uint64_t *last = out + (size_t)(2 * nodes - 1) * stride;
        memcpy(last, rows + (size_t)(dealt - 1) * words, words * sizeof(uint64_t));
        memcpy(last + stride, planes + (size_t)bits * words, words * sizeof(uint64_t));
    }
}

/* ---- comparison gates ---- */
#define FAN 4
#define PRODUCTS 32 /* at least what any gate has */

/* Where the product over a set of inputs stands: the mask itself for one input, else its dealt row. */
typedef struct {
    const uint64_t *masks, *rows;
    size_t words;
    int count; /* of rows */
    uint8_t row_of[1 << 2 * FAN];
} products;

static products index_rows(const uint64_t *masks, const uint64_t *rows, const uint8_t *sets, int count, int64_t words) {
    products p = {masks, rows, (size_t)words, count, {0}};
    for (int i = 0; i < count; i++)
        p.row_of[sets[i]] = (uint8_t)i;
    return p;
}

INLINE const uint64_t *product_over(const products *p, int set) {
    return (set & (set - 1)) == 0 ? p->masks + (size_t)__builtin_ctz((unsigned)set) * p->words
                                  : p->rows + p->row_of[set] * p->words;
}

typedef struct {
    products of;
    uint64_t *rows;
    const uint8_t *sets;
} gate_deal_args;

INLINE void and_into(uint64_t *restrict out, const uint64_t *x, const uint64_t *y, size_t start, size_t stop) {
    INDEPENDENT
    for (size_t w = start; w < stop; w++)
        out[w] = x[w] & y[w];
}

INLINE void gate_deal_body(const gate_deal_args *p, size_t start, size_t stop) {
    const size_t step = 4 * BLOCK; /* what stays in the first two caches */
    for (size_t from = start; from < stop; from += step) {
        size_t to = stop - from < step ? stop : from + step;
        for (int i = 0; i < p->of.count;
             i++) { /* a set comes after its subsets: one more input times what stands already */
            int set = p->sets[i], rest = set & (set - 1);
            and_into(p->rows + (size_t)i * p->of.words, product_over(&p->of, set ^ rest), product_over(&p->of, rest),
                     from, to);
        }
    }
}
KERNEL(gate_deal)

void mpc_gate_deal(uint64_t *rows, const uint64_t *masks, const uint8_t *sets, int count, int64_t words) {
    gate_deal_args args = {index_rows(masks, rows, sets, count, words), rows, sets};
    mpc_run(gate_deal_for, &args, (size_t)words, GRAIN);
}

typedef struct {
    products of;
    uint64_t *out;
    const uint64_t *m;
    int fan, with_eq, first;
} gate_share_args;

/* out ^= prod_i (m_i ^ mask_i).  The products t[s] of masks are summed over one input at a time:
   t'[s] = m_i·t[s] ^ t[s + {i}]. */
INLINE void term(uint64_t *restrict out, const uint64_t *const *m, const uint64_t *const *t, size_t count,
                 const int inputs, uint64_t one) {
    INDEPENDENT
    for (size_t w = 0; w < count; w++) {
        uint64_t sum[1 << FAN];
        sum[0] = one;
        UNROLL
        for (int s = 1; s < 1 << inputs; s++)
            sum[s] = t[s][w];
        UNROLL
        for (int i = inputs - 1; i >= 0; i--) {
            uint64_t x = m[i][w];
            UNROLL
            for (int s = 0; s < 1 << i; s++)
                sum[s] = (x & sum[s]) ^ sum[s + (1 << i)];
        }
        out[w] ^= sum[0];
    }
}

/* out ^= a share of the product of the listed inputs, for the `count` words from `start`. */
INLINE void gate_term(const gate_share_args *p, uint64_t *out, const int *list, int inputs, size_t start,
                      size_t count) {
    const uint64_t *m[FAN], *t[1 << FAN], one = (uint64_t)0 - (uint64_t)p->first;
    for (int i = 0; i < inputs; i++)
        m[i] = p->m + (size_t)list[i] * p->of.words + start;
    for (int s = 1; s < 1 << inputs; s++) {
        int set = 0;
        for (int i = 0; i < inputs; i++)
            set |= (s >> i & 1) << list[i];
        t[s] = product_over(&p->of, set) + start;
    }
    if (inputs == 1)
        term(out, m, t, count, 1, one);
    else if (inputs == 2)
        term(out, m, t, count, 2, one);
    else if (inputs == 3)
        term(out, m, t, count, 3, one);
    else
        term(out, m, t, count, 4, one);
}

INLINE void gate_words(const gate_share_args *p, uint64_t *lt, uint64_t *eq, size_t start, size_t count) {
    const int fan = p->fan;
    int list[FAN];
    memset(lt, 0, count * sizeof(uint64_t));
    for (int k = fan - 1; k >= 0; k--) { /* lt_k·eq_{k+1}···eq_{fan-1} */
        list[0] = k;
        for (int j = k + 1; j < fan; j++)
            list[j - k] = fan + j;
        gate_term(p, lt, list, fan - k, start, count);
    }
    if (p->with_eq) {
        memset(eq, 0, count * sizeof(uint64_t));
        for (int j = 0; j < fan; j++)
            list[j] = fan + j;
        gate_term(p, eq, list, fan, start, count);
    }
}

INLINE void gate_share_body(const gate_share_args *p, size_t start, size_t stop) {
    const int staging = collide(p->of.words);
    const size_t step = staging ? BLOCK : 4 * BLOCK;
    for (size_t w = start; w < stop; w += step) {
        size_t count = stop - w < step ? stop - w : step;
        uint64_t *lt = p->out + w, *eq = p->out + p->of.words + w;
        if (!staging) {
            gate_words(p, lt, eq, w, count);
            continue;
        }
        uint64_t m[2 * FAN * BLOCK], masks[2 * FAN * BLOCK], rows[PRODUCTS * BLOCK];
        gate_share_args staged = *p;
        copy_rows(m, BLOCK, p->m + w, p->of.words, 2 * p->fan, count);
        copy_rows(masks, BLOCK, p->of.masks + w, p->of.words, 2 * p->fan, count);
        copy_rows(rows, BLOCK, p->of.rows + w, p->of.words, p->of.count, count);
        staged.m = m, staged.of.masks = masks, staged.of.rows = rows, staged.of.words = BLOCK;
        gate_words(&staged, lt, eq, 0, count);
    }
}
KERNEL(gate_share)

void mpc_gate_share(uint64_t *out, const uint64_t *m, const uint64_t *masks, const uint64_t *rows, const uint8_t *sets,
                    int count, int64_t words, int fan, int with_eq, int first) {
    gate_share_args args = {index_rows(masks, rows, sets, count, words), out, m, fan, with_eq, first != 0};
    mpc_run(gate_share_for, &args, (size_t)words, GRAIN);
}
