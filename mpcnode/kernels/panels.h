/* Packed panels: how the tiles of a matrix product (tiles.h) want both matrices.

   A panel of A holds the rows of one tile, a panel of B its columns, each for k <= DEPTH values of the inner index:
   panel[k][width].  Behind B's last column zeros fill the vector up.

   Where products of 64 bits are dear (all but AVX-512), tiles take the inner index in pairs, by Winograd's identity for
   inner products (A New Algorithm for Inner Product, IEEE Trans. Computers C-17(7), 1968):

       x1·y1 + x2·y2 = (x1 + y2)·(x2 + y1) - x1·x2 - y1·y2,

   half the multiplications and exact in every commutative ring.  Such a panel is filled up to an even k with zeros, and
   one more row of it holds the sums of x1·x2 over all pairs, which the tile takes off at the end. */
#ifndef MPCNODE_PANELS_H
#define MPCNODE_PANELS_H
#include <string.h>

#include "isa.h"

#define MOST_COLUMNS 24
#define DEPTH 256 /* k of a panel */
#define CHUNK 16  /* of k: lines of the matrix that the first-level cache keeps while neighbouring panels take theirs */

/* `count` rows of A or columns of B as panels of `width`, the last of what is left, filled up to a multiple of `lanes`.
   Element l of row (or column) j stands at from[j * across + l * along]. */
typedef struct {
    uint64_t *to;
    const uint64_t *from;
    int64_t count, width, lanes, k, across, along;
    int pairs;
} packing;

INLINE int64_t least(int64_t x, int64_t y) { return x < y ? x : y; }

/* Rows of a panel. */
INLINE int64_t panel_rows(int64_t k, int pairs) { return pairs ? (k + 1) / 2 * 2 + 1 : k; }

/* l0 .. l1-1 of `count` rows or columns. */
INLINE void pack_some(const int64_t width, uint64_t *to, const uint64_t *from, int64_t count, int64_t l0, int64_t l1,
                      int64_t across, int64_t along) {
    if (count < width)
        for (int64_t l = l0; l < l1; l++)
            for (int64_t j = 0; j < width; j++)
                to[l * width + j] = j < count ? from[j * across + l * along] : 0;
    else if (across == 1)
        for (int64_t l = l0; l < l1; l++)
            memcpy(to + l * width, from + l * along, (size_t)width * sizeof(uint64_t));
    else
        for (int64_t l = l0; l < l1; l++) {
            UNROLL
            for (int64_t j = 0; j < width; j++)
                to[l * width + j] = from[j * across + l * along];
        }
}

/* The last two rows of a panel in pairs: perhaps zeros, and the sums. */
INLINE void sum_pairs(const int64_t width, uint64_t *panel, int64_t k) {
    uint64_t sum[MOST_COLUMNS] = {0}, *sums = panel + (k + 1) / 2 * 2 * width;
    if (k % 2)
        memset(sums - width, 0, (size_t)width * sizeof(uint64_t));
    for (const uint64_t *x = panel; x < sums; x += 2 * width) {
        UNROLL
        for (int64_t j = 0; j < width; j++)
            sum[j] += x[j] * x[width + j];
    }
    for (int64_t j = 0; j < width; j++)
        sums[j] = sum[j];
}

/* `work` with the width as a constant, of those that tiles have. */
#define OF_WIDTH(width, work)  \
    switch (width) {           \
    case 1: work(1); break;    \
    case 2: work(2); break;    \
    case 3: work(3); break;    \
    case 4: work(4); break;    \
    case 5: work(5); break;    \
    case 6: work(6); break;    \
    case 7: work(7); break;    \
    case 8: work(8); break;    \
    case 16: work(16); break;  \
    case 24: work(24); break;  \
    }

INLINE void pack_body(const packing *p) {
    const int64_t rows = panel_rows(p->k, p->pairs), chunk = p->across == 1 ? CHUNK : p->k;
    for (int64_t l = 0; l < p->k; l += chunk)
        for (int64_t j = 0; j < p->count; j += p->width) {
            const int64_t count = least(p->width, p->count - j), width = (count + p->lanes - 1) / p->lanes * p->lanes;
            const uint64_t *from = p->from + j * p->across;
            uint64_t *to = p->to + j * rows;
#define SOME(width) pack_some(width, to, from, count, l, least(p->k, l + chunk), p->across, p->along)
            OF_WIDTH(width, SOME)
#define SUMS(width) sum_pairs(width, to, p->k)
            if (p->pairs && l + chunk >= p->k)
                OF_WIDTH(width, SUMS)
        }
}
static void pack_portable(const packing *p) { pack_body(p); }
AVX512 static void pack_avx512(const packing *p) { pack_body(p); }

#if MPC_X86
#include <immintrin.h>

/* ---- AVX2: panels of two rows, in pairs, from rows or columns that are contiguous ---- */
AVX2 INLINE __m256i product_64(__m256i s, __m256i t) {
    __m256i cross = _mm256_mullo_epi32(_mm256_shuffle_epi32(s, 0xb1), t);
    cross = _mm256_add_epi32(_mm256_slli_epi64(cross, 32), cross);
    return _mm256_add_epi64(_mm256_mul_epu32(s, t), _mm256_blend_epi32(_mm256_setzero_si256(), cross, 0xaa));
}

/* One panel of rows that are contiguous. */
AVX2 static void pack_two(uint64_t *to, const uint64_t *from, int64_t across, int64_t k) {
    __m256i sum = _mm256_setzero_si256();
    int64_t l = 0;
    for (; l + 4 <= k; l += 4, to += 8) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(from + l));
        __m256i y = _mm256_loadu_si256((const __m256i *)(from + across + l));
        __builtin_prefetch(from + 2 * across + l); /* the next panel's: rows are short, and the processor's own guess */
        __builtin_prefetch(from + 3 * across + l); /* starts late in each */
        __m256i even = _mm256_unpacklo_epi64(x, y), odd = _mm256_unpackhi_epi64(x, y);
        _mm256_storeu_si256((__m256i *)to, _mm256_permute2x128_si256(even, odd, 0x20));
        _mm256_storeu_si256((__m256i *)(to + 4), _mm256_permute2x128_si256(even, odd, 0x31));
        sum = _mm256_add_epi64(sum, product_64(even, odd));
    }
    uint64_t sums[4];
    _mm256_storeu_si256((__m256i *)sums, sum);
    for (; l < k; l += 2, to += 4) {
        uint64_t x1 = from[l], x2 = l + 1 < k ? from[l + 1] : 0;
        uint64_t y1 = from[across + l], y2 = l + 1 < k ? from[across + l + 1] : 0;
        to[0] = x1, to[1] = y1, to[2] = x2, to[3] = y2;
        sums[0] += x1 * x2, sums[1] += y1 * y2;
    }
    to[0] = sums[0] + sums[2], to[1] = sums[1] + sums[3];
}

/* The halves of x into the same row of two neighbouring panels. */
AVX2 INLINE void put_halves(uint64_t *to, int64_t next, __m256i x) {
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(x));
    _mm_storeu_si128((__m128i *)(to + next), _mm256_extracti128_si256(x, 1));
}

/* Four panels of rows whose elements stand side by side, so that every line is read once. */
AVX2 static void pack_four_of_two(uint64_t *to, const uint64_t *from, int64_t along, int64_t k) {
    const int64_t next = 2 * panel_rows(k, 1);
    __m256i sum[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int64_t l = 0; l < k; l += 2, to += 4, from += 2 * along) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            __m256i x1 = _mm256_loadu_si256((const __m256i *)(from + 4 * half)), x2 = _mm256_setzero_si256();
            if (l + 1 < k)
                x2 = _mm256_loadu_si256((const __m256i *)(from + along + 4 * half));
            sum[half] = _mm256_add_epi64(sum[half], product_64(x1, x2));
            put_halves(to + 2 * half * next, next, x1);
            put_halves(to + 2 * half * next + 2, next, x2);
        }
    }
    for (int half = 0; half < 2; half++)
        put_halves(to + 2 * half * next, next, sum[half]);
}

AVX2 static void pack_avx2(const packing *p) {
    const int64_t rows = panel_rows(p->k, p->pairs);
    packing rest = *p;
    int64_t done = 0;
    if (p->width == 2 && p->along == 1)
        for (; done + 2 <= p->count; done += 2)
            pack_two(p->to + done * rows, p->from + done * p->across, p->across, p->k);
    else if (p->width == 2 && p->across == 1)
        for (; done + 8 <= p->count; done += 8)
            pack_four_of_two(p->to + done * rows, p->from + done, p->along, p->k);
    rest.to += done * rows, rest.from += done * p->across, rest.count -= done;
    pack_body(&rest);
}
#endif

#endif
