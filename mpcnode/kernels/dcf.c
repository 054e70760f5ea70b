/* Distributed comparison functions: see dcf.py.  AES by the processor's own instructions, the key schedule beside the
   rounds; several nodes at a time, as one waits for itself at every step.  No branch and no address depends on data. */
#include <string.h>

#include "isa.h"
#include "native.h"

#if MPC_X86
#include <immintrin.h>
#define WITH_AES __attribute__((target("avx2,aes")))
#define AES_CODE 1
typedef __m128i block;

int mpc_dcf_compiled(void) {
    __builtin_cpu_init();
    return mpc_isa() >= WITH_AVX2 && __builtin_cpu_supports("aes") != 0;
}

WITH_AES INLINE block aes_round(block s, block key) { return _mm_aesenc_si128(s, key); }
WITH_AES INLINE block aes_last(block s, block key) { return _mm_aesenclast_si128(s, key); }
WITH_AES INLINE block both(block a, block b) { return _mm_and_si128(a, b); }
WITH_AES INLINE block differ(block a, block b) { return _mm_xor_si128(a, b); }
WITH_AES INLINE block all_of(uint32_t word) { return _mm_set1_epi32((int)word); }
WITH_AES INLINE block load(const void *from) { return _mm_loadu_si128(from); }
WITH_AES INLINE void store(void *to, block x) { _mm_storeu_si128(to, x); }

/* The words w_0 .. w_3 of a key -> w_0, w_0 ^ w_1, .. */
WITH_AES INLINE block sums_of_words(block k) {
    k = differ(k, _mm_slli_si128(k, 4));
    return differ(k, _mm_slli_si128(k, 8));
}

/* The last word, rotated, four times. */
WITH_AES INLINE block last_word(block k) { return _mm_shuffle_epi8(k, all_of(0x0c0f0e0d)); }

#elif defined(__aarch64__) && defined(__GNUC__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>
#define WITH_AES __attribute__((target("+crypto")))
#define AES_CODE 1
typedef uint8x16_t block;

int mpc_dcf_compiled(void) { return getauxval(AT_HWCAP) >> 3 & 1; /* HWCAP_AES */ }

WITH_AES INLINE block differ(block a, block b) { return veorq_u8(a, b); }
WITH_AES INLINE block both(block a, block b) { return vandq_u8(a, b); }
WITH_AES INLINE block all_of(uint32_t word) { return vreinterpretq_u8_u32(vdupq_n_u32(word)); }
WITH_AES INLINE block aes_last(block s, block key) { return differ(vaeseq_u8(s, vdupq_n_u8(0)), key); }
WITH_AES INLINE block aes_round(block s, block key) {
    return differ(vaesmcq_u8(vaeseq_u8(s, vdupq_n_u8(0))), key);
}
WITH_AES INLINE block load(const void *from) { return vld1q_u8(from); }
WITH_AES INLINE void store(void *to, block x) { vst1q_u8(to, x); }
WITH_AES INLINE block sums_of_words(block k) {
    const block zero = vdupq_n_u8(0);
    k = differ(k, vextq_u8(zero, k, 12));
    return differ(k, vextq_u8(zero, k, 8));
}
WITH_AES INLINE block last_word(block k) { return vqtbl1q_u8(k, all_of(0x0c0f0e0d)); }

#else
#define AES_CODE 0
int mpc_dcf_compiled(void) { return 0; }
#endif

#if AES_CODE
enum { SEED = 16, LEVEL = SEED + 1, TAIL = 7, LANES = 4 };

INLINE int levels(int lo, int top) { return top - lo > TAIL ? top - lo - TAIL : 0; }

/* AES-128 under LANES keys, of `count` blocks each. */
WITH_AES INLINE void generate(const block seed[LANES], const int count, block out[][LANES]) {
    static const uint32_t constants[10] = {1, 2, 4, 8, 16, 32, 64, 128, 27, 54};
    block k[LANES];
    UNROLL
    for (int l = 0; l < LANES; l++) {
        k[l] = seed[l];
        UNROLL
        for (int i = 0; i < count; i++)
            out[i][l] = differ(out[i][l], k[l]);
    }
    for (int round = 0; round < 10; round++) {
        const block constant = all_of(constants[round]);
        UNROLL
        for (int l = 0; l < LANES; l++) {
            /* SubWord by the last round of AES: it moves bytes within rows, which are four times the same here. */
            k[l] = differ(sums_of_words(k[l]), aes_last(last_word(k[l]), constant));
            UNROLL
            for (int i = 0; i < count; i++)
                out[i][l] = round < 9 ? aes_round(out[i][l], k[l]) : aes_last(out[i][l], k[l]);
        }
    }
}

/* Counter i, whose block the generator encrypts. */
WITH_AES INLINE block counter(uint32_t i) {
    const uint32_t words[4] = {0, 0, 0, i << 24};
    return load(words);
}

/* The first byte of a block. */
WITH_AES INLINE uint32_t byte_of(block x) {
    uint8_t bytes[SEED];
    store(bytes, x);
    return bytes[0];
}

WITH_AES INLINE block chosen(uint32_t bit, block one, block zero) {
    return differ(zero, both(all_of(-bit), differ(one, zero)));
}

/* 1 in the first `count` bits, 0 <= count <= 128. */
INLINE void first_bits(uint64_t out[2], uint32_t count) {
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t before = 64 * i, less = -(uint32_t)(count < before + 64), some = -(uint32_t)(count > before);
        const uint64_t part = ((uint64_t)1 << (count & 63)) - 1;
        out[i] = (uint64_t)(int64_t)(int32_t)some & (part | ~(uint64_t)(int64_t)(int32_t)less);
    }
}

/* Two elements at a time, both parties of each: lanes 2·e + party. */
WITH_AES static void deal(uint8_t *out, const uint64_t *x, const uint64_t *roots, size_t elements, int lo, int top) {
    const int depth = levels(lo, top), width = LEVEL * depth + SEED, bits = top - lo;
    for (size_t start = 0; start < elements; start += LANES / 2) {
        block seed[LANES], made[3][LANES];
        uint8_t *key[2];
        uint64_t rho[2];
        uint32_t constant[2], v[2] = {0, 0}, t[LANES];
        for (size_t e = 0; e < 2; e++) { /* the last one twice, if it is alone */
            const size_t at = start + e < elements ? start + e : start;
            key[e] = out + at * (size_t)width;
            rho[e] = x[at] >> lo;
            constant[e] = x[at] >> top & 1;
            for (size_t b = 0; b < 2; b++) {
                seed[2 * e + b] = load(roots + 2 * (b * elements + at));
                t[2 * e + b] = (uint32_t)b;
            }
        }
        for (int level = 0; level < depth; level++) {
            for (uint32_t i = 0; i < 3; i++)
                for (int l = 0; l < LANES; l++)
                    made[i][l] = counter(i);
            generate(seed, 3, made);
            for (int e = 0; e < 2; e++) {
                const int l = 2 * e;
                const uint32_t one = byte_of(made[2][l]), other = byte_of(made[2][l + 1]);
                const uint32_t way = rho[e] >> (bits - 1 - level) & 1;
                const uint32_t sums = one ^ other, turn = (sums & 3) ^ (way << 1 | (way ^ 1));
                const uint32_t put = (sums >> (3 - way) ^ v[e] ^ way ^ constant[e]) & 1;
                const block word = chosen(way, differ(made[0][l], made[0][l + 1]), differ(made[1][l], made[1][l + 1]));
                v[e] ^= (sums >> (2 + way) ^ put) & 1;
                store(key[e] + LEVEL * level, word);
                key[e][LEVEL * level + SEED] = (uint8_t)(turn | put << 2);
                for (int b = 0; b < 2; b++) {
                    const block child = chosen(way, made[1][l + b], made[0][l + b]);
                    seed[l + b] = differ(child, both(word, all_of(-t[l + b])));
                    t[l + b] = ((b ? other : one) >> way ^ (t[l + b] & turn >> way)) & 1;
                }
            }
        }
        for (int l = 0; l < LANES; l++)
            made[0][l] = counter(3);
        generate(seed, 1, made);
        for (int e = 0; e < 2; e++) {
            const uint64_t rest = rho[e] & (((uint64_t)1 << (bits < TAIL ? bits : TAIL)) - 1);
            uint64_t below[2];
            first_bits(below, (uint32_t)rest);
            const block sum = differ(made[0][2 * e], made[0][2 * e + 1]);
            store(key[e] + LEVEL * depth, differ(differ(sum, load(below)), all_of(-(v[e] ^ constant[e]))));
        }
    }
}

/* LANES elements at a time. */
WITH_AES static void share(uint8_t *out, const uint64_t *c, const uint8_t *key, const uint64_t *root, size_t elements,
                           int lo, int top, int first) {
    const int depth = levels(lo, top), width = LEVEL * depth + SEED, bits = top - lo;
    for (size_t start = 0; start < elements; start += LANES) {
        block seed[LANES], made[2][LANES];
        const uint8_t *words[LANES];
        size_t at[LANES];
        uint64_t number_of[LANES];
        uint32_t t[LANES], v[LANES];
        for (size_t l = 0; l < LANES; l++) {
            at[l] = start + l < elements ? start + l : start;
            words[l] = key + at[l] * (size_t)width;
            number_of[l] = c[at[l]] >> lo;
            seed[l] = load(root + 2 * at[l]);
            t[l] = !first;
            v[l] = 0;
        }
        for (int level = 0; level < depth; level++) {
            uint32_t way[LANES];
            for (int l = 0; l < LANES; l++) {
                way[l] = number_of[l] >> (bits - 1 - level) & 1;
                made[0][l] = counter(way[l]);
                made[1][l] = counter(2);
            }
            generate(seed, 2, made);
            for (int l = 0; l < LANES; l++) {
                const uint32_t own = byte_of(made[1][l]), put = words[l][LEVEL * level + SEED] & -t[l];
                seed[l] = differ(made[0][l], both(load(words[l] + LEVEL * level), all_of(-t[l])));
                v[l] ^= (own >> (2 + way[l]) ^ put >> 2) & 1;
                t[l] = (own >> way[l] ^ put >> way[l]) & 1;
            }
        }
        for (int l = 0; l < LANES; l++)
            made[0][l] = counter(3);
        generate(seed, 1, made);
        for (int l = 0; l < LANES; l++) {
            const uint32_t rest = number_of[l] & ((1u << (bits < TAIL ? bits : TAIL)) - 1); /* public */
            uint8_t bytes[SEED];
            store(bytes, differ(made[0][l], both(load(words[l] + LEVEL * depth), all_of(-t[l]))));
            out[at[l]] = (uint8_t)((v[l] ^ bytes[rest >> 3] >> (rest & 7)) & 1);
        }
    }
}

void mpc_dcf_deal(uint8_t *out, const uint64_t *x, const uint64_t *roots, int64_t elements, int lo, int top) {
    deal(out, x, roots, (size_t)elements, lo, top);
}

void mpc_dcf_share(uint8_t *out, uint8_t *tops, uint64_t *moved, const uint64_t *x, const uint64_t *cuts, int64_t count,
                   const uint8_t *key, const uint64_t *root, int64_t elements, int lo, int top, int first) {
    for (int64_t k = 0; k < count; k++, out += elements, tops += elements) {
        for (int64_t e = 0; e < elements; e++) {
            moved[e] = x[e] - cuts[k];
            tops[e] = moved[e] >> top & 1;
        }
        share(out, moved, key, root, (size_t)elements, lo, top, first);
    }
}
#else
void mpc_dcf_deal(uint8_t *out, const uint64_t *x, const uint64_t *roots, int64_t elements, int lo, int top) {
    (void)out, (void)x, (void)roots, (void)elements, (void)lo, (void)top;
}

void mpc_dcf_share(uint8_t *out, uint8_t *tops, uint64_t *moved, const uint64_t *x, const uint64_t *cuts, int64_t count,
                   const uint8_t *key, const uint64_t *root, int64_t elements, int lo, int top, int first) {
    (void)out, (void)tops, (void)moved, (void)x, (void)cuts, (void)count, (void)key, (void)root, (void)elements;
    (void)lo, (void)top, (void)first;
}
#endif
