/* Register tiles of the matrix product: out[rows, columns] (= or +=) panel of A [k, rows] x panel of B [k, columns].

   AVX-512 multiplies 64-bit integers in one instruction.  AVX2 does not: with a = ah·2^32 + al and b likewise,
   a·b = al·bl + 2^32·(ah·bl + al·bh) mod 2^64, so a tile keeps two sums, of al·bl in 64 bits and of the two cross
   products, each mod 2^32, in the two halves of a lane: b times the swapped halves of a in one multiplication of 32-bit
   lanes.  They are joined after the last k.

   k >= 1, so every loop tests at its end: with a test before it GCC copies all the sums once per turn for the way
   around the loop. */
#ifndef MPCNODE_TILES_H
#define MPCNODE_TILES_H
#include "isa.h"

#define MOST_ROWS 8
#define MOST_COLUMNS 24

typedef void (*tile_kernel)(uint64_t *out, int64_t out_row, const uint64_t *a, const uint64_t *b, int64_t b_row,
                            int64_t k, int add);

/* rows x k of A, maybe negated -> panel[k][rows]. */
typedef void (*row_packer)(uint64_t *panel, const uint64_t *a, int64_t k, int64_t row, int64_t col, int negate);

typedef struct {
    int rows, vectors, lanes; /* of the largest tile */
    int copies;               /* words of A's panels an element takes: 2 when its swapped halves follow it */
    int block_rows;           /* of a block of A in the second-level cache: a multiple of rows */
    row_packer pack[MOST_ROWS];
    tile_kernel tile[MOST_ROWS][3];
} tiling;

#define TWICE _Pragma("GCC unroll 2")

#define LANES_portable 4
#define LANES_avx2 4
#define LANES_avx512 8
#define TILE_ARGS \
    uint64_t *out, int64_t out_row, const uint64_t *a, const uint64_t *b, int64_t b_row, int64_t k, int add
/* The tile of the result is asked for before the first k: its rows stand far apart, so the processor does not foresee
 * it. */
#define TILE(isa, target, rows, vectors)                                    \
    target static void tile_##isa##_##rows##x##vectors(TILE_ARGS) {         \
        for (int r = 0; r < rows; r++)                                      \
            for (int v = 0; v < vectors; v++)                               \
                __builtin_prefetch(out + r * out_row + v * LANES_##isa, 1); \
        tile_##isa(rows, vectors, out, out_row, a, b, b_row, k, add);       \
    }

/* ---- packing of A ---- */
INLINE void pack_rows(const int rows, const int copies, const int contiguous, uint64_t *panel, const uint64_t *a,
                      int64_t k, int64_t row, int64_t col, int negate) {
    const uint64_t sign = (uint64_t)0 - (uint64_t)negate;
    if (contiguous)
        col = 1;
    for (int64_t i = 0; i < k; i++, panel += rows * copies) {
        UNROLL
        for (int r = 0; r < rows; r++) {
            uint64_t x = (a[r * row + i * col] ^ sign) - sign;
            panel[copies * r] = x;
            if (copies == 2)
                panel[2 * r + 1] = x << 32 | x >> 32;
        }
    }
}
#define PACK(isa, target, rows, copies)                                                                             \
    target static void pack_##isa##_##rows(uint64_t *panel, const uint64_t *a, int64_t k, int64_t row, int64_t col, \
                                           int negate) {                                                            \
        if (col == 1)                                                                                               \
            pack_rows(rows, copies, 1, panel, a, k, row, col, negate);                                              \
        else                                                                                                        \
            pack_rows(rows, copies, 0, panel, a, k, row, col, negate);                                              \
    }

/* ---- portable: four by four in scalar registers ---- */
INLINE void tile_portable(const int rows, const int vectors, TILE_ARGS) {
    uint64_t sum[4][4] = {{0}};
    (void)vectors;
    do {
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < 4; c++)
                sum[r][c] += a[r] * b[c];
        a += rows;
        b += b_row;
    } while (--k);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 4; c++)
            out[r * out_row + c] = sum[r][c] + (add ? out[r * out_row + c] : 0);
}
#define ROW_PORTABLE(rows) PACK(portable, , rows, 1) TILE(portable, , rows, 1)
ROW_PORTABLE(1)
ROW_PORTABLE(2)
ROW_PORTABLE(3)
ROW_PORTABLE(4)

#if MPC_X86
#include <immintrin.h>

/* ---- AVX2: two rows by two vectors of four (three rows are too many for sixteen registers: compilers spill) ---- */
AVX2 INLINE void tile_avx2(const int rows, const int vectors, TILE_ARGS) {
    const __m256i high = _mm256_set1_epi64x((long long)0xffffffff00000000u);
    __m256i low[2][2], cross[2][2];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++)
            low[r][v] = cross[r][v] = _mm256_setzero_si256();
    }
    TWICE
    do {
        __m256i y[2];
        UNROLL
        for (int v = 0; v < vectors; v++)
            y[v] = _mm256_loadu_si256((const __m256i *)(b + 4 * v));
        UNROLL
        for (int r = 0; r < rows; r++) {
            __m256i x = _mm256_set1_epi64x((long long)a[2 * r]), swapped = _mm256_set1_epi64x((long long)a[2 * r + 1]);
            UNROLL
            for (int v = 0; v < vectors; v++) {
                low[r][v] = _mm256_add_epi64(low[r][v], _mm256_mul_epu32(x, y[v]));
                cross[r][v] = _mm256_add_epi32(cross[r][v], _mm256_mullo_epi32(swapped, y[v]));
            }
        }
        a += 2 * rows;
        b += b_row;
    } while (--k);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            __m256i *to = (__m256i *)(out + r * out_row + 4 * v);
            __m256i both = _mm256_add_epi32(_mm256_slli_epi64(cross[r][v], 32), cross[r][v]);
            __m256i sum = _mm256_add_epi64(low[r][v], _mm256_and_si256(both, high));
            _mm256_storeu_si256(to, add ? _mm256_add_epi64(sum, _mm256_loadu_si256(to)) : sum);
        }
    }
}
#define ROW_AVX2(rows) PACK(avx2, AVX2, rows, 2) TILE(avx2, AVX2, rows, 1) TILE(avx2, AVX2, rows, 2)
ROW_AVX2(1)
ROW_AVX2(2)

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
        b += b_row;
    } while (--k);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            uint64_t *to = out + r * out_row + 8 * v;
            _mm512_storeu_si512(to, add ? _mm512_add_epi64(sum[r][v], _mm512_loadu_si512(to)) : sum[r][v]);
        }
    }
}
#define ROW_AVX512(rows)          \
    PACK(avx512, AVX512, rows, 1) \
    TILE(avx512, AVX512, rows, 1) TILE(avx512, AVX512, rows, 2) TILE(avx512, AVX512, rows, 3)
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
    {.rows = 4, .vectors = 1, .lanes = 4, .copies = 1, .block_rows = 64,
     .pack = {pack_portable_1, pack_portable_2, pack_portable_3, pack_portable_4},
     .tile = {{tile_portable_1x1}, {tile_portable_2x1}, {tile_portable_3x1}, {tile_portable_4x1}}},
#if MPC_X86
    {.rows = 2, .vectors = 2, .lanes = 4, .copies = 2, .block_rows = 32,
     .pack = {pack_avx2_1, pack_avx2_2},
     .tile = {{tile_avx2_1x1, tile_avx2_1x2}, {tile_avx2_2x1, tile_avx2_2x2}}},
    {.rows = 8, .vectors = 3, .lanes = 8, .copies = 1, .block_rows = 96,
     .pack = {pack_avx512_1, pack_avx512_2, pack_avx512_3, pack_avx512_4,
              pack_avx512_5, pack_avx512_6, pack_avx512_7, pack_avx512_8},
     .tile = {TILES_512(1), TILES_512(2), TILES_512(3), TILES_512(4),
              TILES_512(5), TILES_512(6), TILES_512(7), TILES_512(8)}},
#endif
};
/* clang-format on */
#endif
