/* One source, several instruction sets: a kernel's body is inlined into one function per instruction set, and a table
   picks at run time.  (target_clones would do the same, but needs ifunc, which musl and some linkers lack.) */
#ifndef MPCNODE_ISA_H
#define MPCNODE_ISA_H
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "little-endian only; the reference kernels serve elsewhere"
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define MPC_X86 1
#define AVX2 __attribute__((target("avx2,bmi,bmi2")))
#define AVX512 __attribute__((target("avx2,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define MPC_X86 0
#define AVX2
#define AVX512
#endif

enum { PORTABLE, WITH_AVX2, WITH_AVX512, ISAS };

#define INLINE static inline __attribute__((always_inline))
/* UNROLL: a short loop over an array that is to live in registers.
   INDEPENDENT: no iteration needs what another stores. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* A range kernel: elements (or words) start .. stop-1 of what `args` describes. */
typedef void (*range_kernel)(const void *args, size_t start, size_t stop);

/* `name_body(const type *, size_t, size_t)` for every instruction set, as the table name_for[]. */
#define KERNEL_OF(name, type)                                                       \
    static void name##_portable(const void *args, size_t start, size_t stop) {      \
        name##_body((const type *)args, start, stop);                               \
    }                                                                               \
    AVX2 static void name##_avx2(const void *args, size_t start, size_t stop) {     \
        name##_body((const type *)args, start, stop);                               \
    }                                                                               \
    AVX512 static void name##_avx512(const void *args, size_t start, size_t stop) { \
        name##_body((const type *)args, start, stop);                               \
    }                                                                               \
    static const range_kernel name##_for[ISAS] = {name##_portable, name##_avx2, name##_avx512};
#define KERNEL(name) KERNEL_OF(name, name##_args)

/* Run table[isa] over 0 .. count-1, by several threads if each gets `grain` or more; ranges start at multiples of 64 */
void mpc_run(const range_kernel *table, const void *args, size_t count, size_t grain);

#endif
