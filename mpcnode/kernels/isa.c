/* Which instruction set, how many threads. */
#include "isa.h"
#include "native.h"
#ifdef _OPENMP
#include <omp.h>
#endif

static int threads_wanted = 1;
static int isa_chosen = -1;

static int isa_best(void) {
#if MPC_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return WITH_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
        return WITH_AVX2;
#endif
    return PORTABLE;
}

int mpc_isa(void) {
    if (isa_chosen < 0)
        isa_chosen = isa_best();
    return isa_chosen;
}

void mpc_set_isa(int isa) {
    int best = isa_best();
    isa_chosen = isa < PORTABLE ? PORTABLE : isa < best ? isa : best;
}

int mpc_threads(void) { return threads_wanted; }

void mpc_set_threads(int threads) {
#ifdef _OPENMP
    threads_wanted = threads < 1 ? 1 : threads;
#else
    (void)threads;
#endif
}

void mpc_run(const range_kernel *table, const void *args, size_t count, size_t grain) {
    range_kernel kernel = table[mpc_isa()];
    size_t parts = count / grain;
    if (parts > (size_t)threads_wanted)
        parts = (size_t)threads_wanted;
    if (parts <= 1) {
        kernel(args, 0, count);
        return;
    }
    size_t step = ((count + parts - 1) / parts + 63) / 64 * 64;
#ifdef _OPENMP
#pragma omp parallel for num_threads((int)parts) schedule(static, 1)
#endif
    for (size_t part = 0; part < parts; part++) {
        size_t start = part * step, stop = start + step < count ? start + step : count;
        if (start < stop)
            kernel(args, start, stop);
    }
}
