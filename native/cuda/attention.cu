// attention forward: K and V go into the block store, then blocks of threads visit the tiles (attention_forward.cuh).
// In the fastest mode the key blocks of few queries may be shared out to several blocks of threads.
#include "cuda/attention_forward.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

constexpr int kStoreThreads = 256;

// Values of a free slot must be finite, since they are multiplied by a probability of 0.
template <class T>
__global__ void __launch_bounds__(kStoreThreads) open_blocks_kernel(const AttentionArgs<T> p) {
  const int32_t block = p.plan.fresh_blocks[blockIdx.x];
  if (block < 0) return;
  uint4* const values = reinterpret_cast<uint4*>(p.value_tile(block, blockIdx.y));
  const int count = p.tile_size() * static_cast<int>(sizeof(T)) / 16;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kStoreThreads) values[i] = uint4{0, 0, 0, 0};
}

template <class T>
__global__ void __launch_bounds__(kStoreThreads) copy_blocks_kernel(const AttentionArgs<T> p) {
  const KvCopy copy = p.plan.copies[blockIdx.x];
  if (copy.to < 0) return;
  const uint4* const from = reinterpret_cast<const uint4*>(p.key_tile(copy.from, blockIdx.y));
  uint4* const to = reinterpret_cast<uint4*>(p.key_tile(copy.to, blockIdx.y));
  const int count = 2 * p.tile_size() * static_cast<int>(sizeof(T)) / 16;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kStoreThreads) to[i] = from[i];
}

template <class T>
__global__ void __launch_bounds__(kStoreThreads) write_rows_kernel(const AttentionArgs<T> p) {
  const KvWrite write = p.plan.writes[blockIdx.x];
  if (write.block < 0) return;
  const int64_t row = write.row;
  for (int i = static_cast<int>(threadIdx.x); i < p.kv_heads * p.head_dim; i += kStoreThreads) {
    const int head = i / p.head_dim, d = i % p.head_dim;
    p.key_tile(write.block, head)[p.key_place(write.slot, d)] = p.key_row(row, head)[d];
    p.value_tile(write.block, head)[p.value_place(write.slot, d)] = p.value_row(row, head)[d];
  }
}

template <class T, int kD, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, 1) forward_kernel(const __grid_constant__ AttentionArgs<T> p) {
  Forward<T, kD, kWarps>(p).run();
}

template <class T, int kD>
__global__ void __launch_bounds__(32, 1)
    forward_part_kernel(const __grid_constant__ AttentionArgs<T> p, const __grid_constant__ AttentionParts parts) {
  Forward<T, kD, 1, true>(p, &parts).run();
}

template <class T, int kD, int kWarps>
void visit_tiles(Launch& launch, const AttentionArgs<T>& args) {
  using Kernel = Forward<T, kD, kWarps>;
  // Tiles have up to 32 rows where plans are built; larger ones are walked by the same blocks.
  const int64_t chunks = divide_up(int64_t{32} * args.group(), Kernel::kRows);
  launch.run(forward_kernel<T, kD, kWarps>, blocks(args.plan.num_tiles, args.kv_heads, chunks), Kernel::kThreads,
             Kernel::kSharedBytes, args);
}

template <class T, int kD>
void visit_parts(Launch& launch, const AttentionArgs<T>& args, int64_t rows) {
  using Kernel = Forward<T, kD, 1, true>;
  static_assert(Kernel::kRows == 16);  // as split.h counts them
  const int64_t processors = launch.processors();
  const AttentionParts parts(
      launch, kAttentionBlocks * processors * Kernel::kRows,
      attention_parts(processors, args.plan.num_tiles, rows, args.group(), args.kv_heads, args.plan.most_keys), rows,
      args.query_heads, args.head_dim);
  if (parts.count < 2) return visit_tiles<T, kD, 1>(launch, args);
  const int64_t chunks = divide_up(int64_t{32} * args.group(), Kernel::kRows);
  launch.run(forward_part_kernel<T, kD>, blocks(args.plan.num_tiles, args.kv_heads, chunks * parts.count),
             Kernel::kThreads, Kernel::kSharedBytes, args, parts);
  launch.run(merge_parts_kernel<T>, blocks(args.plan.num_tiles, args.query_heads), kPartThreads, 0, args, parts);
}

template <class T, int kD>
void forward(Launch& launch, const AttentionArgs<T>& args, int64_t rows) {
  launch.run(open_blocks_kernel<T>, blocks(args.plan.num_fresh, args.kv_heads), kStoreThreads, 0, args);
  launch.run(copy_blocks_kernel<T>, blocks(args.plan.num_copies, args.kv_heads), kStoreThreads, 0, args);
  launch.run(write_rows_kernel<T>, blocks(args.plan.num_writes), kStoreThreads, 0, args);
  // Decoding rows have keys of their own: small blocks wait for one another less.
  constexpr int kWarps = sizeof(T) == 2 ? 4 : 2;
  if (rows > 1024) {
    visit_tiles<T, kD, kWarps>(launch, args);
  } else if (launch.fastest()) {
    visit_parts<T, kD>(launch, args, rows);
  } else {
    visit_tiles<T, kD, 1>(launch, args);
  }
}

}  // namespace

void attention_forward(Launch& launch, const Attention& p) {
  if (!supports_attention(launch, p)) return;
  with_element(p.qkv.dtype, [&](auto type) {
    using T = decltype(type);
    const AttentionArgs<T> args(p);
    if (p.head_dim <= 64) {
      forward<T, 64>(launch, args, p.qkv.rows());
    } else {
      forward<T, 128>(launch, args, p.qkv.rows());
    }
  });
}

}  // namespace gavel::cuda
