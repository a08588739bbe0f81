// The instructions that CUDA C++ has no function for: bf16 tensor core products, matrix loads from shared memory, and
// asynchronous copies of 16 bytes. All are of sm_80.
#pragma once
#include "cuda/device.cuh"
#ifndef __CUDACC__
#include <emulated_ptx.h>
#endif

namespace gavel::cuda {

#ifdef __CUDACC__

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// d[16, 8] += a[16, 16] b[16, 8] by a warp. Lane 4 g + t holds of d rows g and g + 8, columns 2 t and 2 t + 1.
__device__ inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8x8 matrices of 16-bit elements: lane 8 i + r gives the address of row r of matrix i.
template <bool kTransposed>
__device__ inline void ldmatrix_x4(uint32_t (&words)[4], const void* row) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

// 16 bytes to shared memory, zeros unless `valid`; both addresses are aligned to 16 bytes.
__device__ inline void copy_async(void* to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
               :
               : "r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Until all but the newest kPending groups of this thread are there.
template <int kPending>
__device__ inline void copy_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

#else

using emulation::ldmatrix_x4;
using emulation::mma_bf16;
inline void copy_async(void* to, const void* from, bool valid) {
  emulation::copies().push({to, valid ? from : nullptr});
}
inline void copy_commit() {
  emulation::copies().groups.push_back(std::move(emulation::copies().open));
  emulation::copies().open.clear();
}
template <int kPending>
void copy_wait() {
  emulation::copies().wait(kPending);
}

#endif

}  // namespace gavel::cuda
