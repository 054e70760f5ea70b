/* Register tiles of the matrix product: out[rows, columns] =, += or -= panel of A [k, rows] x panel of B [k, columns]
   (panels.h).

   AVX-512 multiplies 64-bit integers in one instruction.  AVX2 does not: with s = sh·2^32 + sl and t likewise,
   s·t = sl·tl + 2^32·(sh·tl + sl·th) mod 2^64, so a tile keeps two sums, of sl·tl in 64 bits and of the two cross
   products, each mod 2^32, in the two halves of a lane: t times the swapped halves of s in one multiplication of 32-bit
   lanes.  They are joined after the last k.  With pairs that makes 7 instructions for 2·4 products, two of them
   multiplications; a Zen 3 core starts four and two such a cycle.

   k >= 1, so every loop tests at its end: with a test before it GCC copies all the sums once per turn for the way
   around the loop. */
#ifndef MPCNODE_TILES_H
#define MPCNODE_TILES_H
#include "panels.h"

#define MOST_ROWS 8

/* mode 0: out = , 1: out +=, -1: out -=. */
typedef void (*tile_kernel)(uint64_t *out, int64_t out_row, const uint64_t *a, const uint64_t *b, int64_t k, int mode);

typedef struct {
    int rows, vectors, lanes; /* of the largest tile */
    int pairs;                /* whether panels are in pairs (panels.h) */
    int block_rows;           /* of a block of A in the second-level cache: a multiple of rows */
    void (*pack)(const packing *p);
    tile_kernel tile[MOST_ROWS][3];
} tiling;

#define LANES_portable 4
#define LANES_avx2 4
#define LANES_avx512 8
#define TILE_ARGS uint64_t *out, int64_t out_row, const uint64_t *a, const uint64_t *b, int64_t k, int mode
/* The tile of the result is asked for before the first k: its rows stand far apart, so the processor does not foresee
 * it. */
#define TILE(isa, target, rows, vectors)                                    \
    target static void tile_##isa##_##rows##x##vectors(TILE_ARGS) {         \
        for (int r = 0; r < rows; r++)                                      \
            for (int v = 0; v < vectors; v++)                               \
                __builtin_prefetch(out + r * out_row + v * LANES_##isa, 1); \
        tile_##isa(rows, vectors, out, out_row, a, b, k, mode);             \
    }

/* ---- portable: four by four in scalar registers ---- */
INLINE void tile_portable(const int rows, const int vectors, TILE_ARGS) {
    uint64_t sum[4][4] = {{0}};
    (void)vectors;
    k = (k + 1) / 2;
    do {
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < 4; c++)
                sum[r][c] += (a[r] + b[4 + c]) * (a[rows + r] + b[c]);
        a += 2 * rows;
        b += 2 * 4;
    } while (--k);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 4; c++) {
            uint64_t *to = out + r * out_row + c, x = sum[r][c] - a[r] - b[c];
            *to = mode == 0 ? x : mode > 0 ? *to + x : *to - x;
        }
}
TILE(portable, , 1, 1)
TILE(portable, , 2, 1)
TILE(portable, , 3, 1)
TILE(portable, , 4, 1)

#if MPC_X86
#include <immintrin.h>

/* ---- AVX2: two rows by two vectors of four (with three, compilers spill the sums) ---- */
AVX2 INLINE void tile_avx2(const int rows, const int vectors, TILE_ARGS) {
    const __m256i high = _mm256_set1_epi64x((long long)0xffffffff00000000u);
    __m256i low[2][2], cross[2][2];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++)
            low[r][v] = cross[r][v] = _mm256_setzero_si256();
    }
    k = (k + 1) / 2;
    do {
        __m256i y1[2], y2[2];
        UNROLL
        for (int v = 0; v < vectors; v++) {
            y1[v] = _mm256_loadu_si256((const __m256i *)(b + 4 * v));
            y2[v] = _mm256_loadu_si256((const __m256i *)(b + 4 * (vectors + v)));
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            __m256i x1 = _mm256_set1_epi64x((long long)a[r]), x2 = _mm256_set1_epi64x((long long)a[rows + r]);
            UNROLL
            for (int v = 0; v < vectors; v++) {
                __m256i s = _mm256_add_epi64(x1, y2[v]), t = _mm256_add_epi64(x2, y1[v]);
                __m256i swapped = _mm256_shuffle_epi32(s, 0xb1);
                low[r][v] = _mm256_add_epi64(low[r][v], _mm256_mul_epu32(s, t));
                cross[r][v] = _mm256_add_epi32(cross[r][v], _mm256_mullo_epi32(swapped, t));
            }
        }
        a += 2 * rows;
        b += 2 * 4 * vectors;
    } while (--k);
    UNROLL
    for (int r = 0; r < rows; r++) {
        __m256i squares = _mm256_set1_epi64x((long long)a[r]);
        UNROLL
        for (int v = 0; v < vectors; v++) {
            __m256i *to = (__m256i *)(out + r * out_row + 4 * v);
            __m256i off = _mm256_add_epi64(squares, _mm256_loadu_si256((const __m256i *)(b + 4 * v)));
            __m256i both = _mm256_add_epi32(_mm256_slli_epi64(cross[r][v], 32), cross[r][v]);
            __m256i sum = _mm256_add_epi64(low[r][v], _mm256_and_si256(both, high));
            sum = _mm256_sub_epi64(sum, off);
            if (mode > 0)
                sum = _mm256_add_epi64(_mm256_loadu_si256(to), sum);
            else if (mode < 0)
                sum = _mm256_sub_epi64(_mm256_loadu_si256(to), sum);
            _mm256_storeu_si256(to, sum);
        }
    }
}
TILE(avx2, AVX2, 1, 1)
TILE(avx2, AVX2, 1, 2)
TILE(avx2, AVX2, 2, 1)
TILE(avx2, AVX2, 2, 2)

/* ---- AVX-512: eight rows by three vectors of eight ---- */
AVX512 INLINE void tile_avx512(const int rows, const int vectors, TILE_ARGS) {
    __m512i sum[8][3];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++)
            sum[r][v] = _mm512_setzero_si512();
    }
    do {
        __m512i y[3];
        UNROLL
        for (int v = 0; v < vectors; v++)
            y[v] = _mm512_loadu_si512(b + 8 * v);
        UNROLL
        for (int r = 0; r < rows; r++) {
            __m512i x = _mm512_set1_epi64((long long)a[r]);
            UNROLL
            for (int v = 0; v < vectors; v++)
                sum[r][v] = _mm512_add_epi64(sum[r][v], _mm512_mullo_epi64(x, y[v]));
        }
        a += rows;
        b += 8 * vectors;
    } while (--k);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            uint64_t *to = out + r * out_row + 8 * v;
            if (mode > 0)
                sum[r][v] = _mm512_add_epi64(_mm512_loadu_si512(to), sum[r][v]);
            else if (mode < 0)
                sum[r][v] = _mm512_sub_epi64(_mm512_loadu_si512(to), sum[r][v]);
            _mm512_storeu_si512(to, sum[r][v]);
        }
    }
}
#define ROW_AVX512(rows) TILE(avx512, AVX512, rows, 1) TILE(avx512, AVX512, rows, 2) TILE(avx512, AVX512, rows, 3)
ROW_AVX512(1)
ROW_AVX512(2)
ROW_AVX512(3)
ROW_AVX512(4)
ROW_AVX512(5)
ROW_AVX512(6)
ROW_AVX512(7)
ROW_AVX512(8)
#define TILES_512(rows) {tile_avx512_##rows##x1, tile_avx512_##rows##x2, tile_avx512_##rows##x3}
#endif

/* clang-format off */
static const tiling tilings[ISAS] = {
    {.rows = 4, .vectors = 1, .lanes = 4, .pairs = 1, .block_rows = 64, .pack = pack_portable,
     .tile = {{tile_portable_1x1}, {tile_portable_2x1}, {tile_portable_3x1}, {tile_portable_4x1}}},
#if MPC_X86
    {.rows = 2, .vectors = 2, .lanes = 4, .pairs = 1, .block_rows = 64, .pack = pack_avx2,
     .tile = {{tile_avx2_1x1, tile_avx2_1x2}, {tile_avx2_2x1, tile_avx2_2x2}}},
    {.rows = 8, .vectors = 3, .lanes = 8, .pairs = 0, .block_rows = 96, .pack = pack_avx512,
     .tile = {TILES_512(1), TILES_512(2), TILES_512(3), TILES_512(4),
              TILES_512(5), TILES_512(6), TILES_512(7), TILES_512(8)}},
#endif
};
/* clang-format on */
#endif
