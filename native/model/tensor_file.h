// Tensors between files and the packed layout, by chunks: checked reads (never a mapped file: a truncated one would be
// SIGBUS) and writes with fsync. Chunks are spread over the pool, so reading one runs beside the packing of others.
// The bytes are those of a safetensors or GGUF file, whose header the caller handles. Job thread only.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"
#include "core/threads.h"
#include "model/quantized.h"
#include "model/weights.h"

namespace gavel {

struct TensorRead {
  std::string name;  // of a source tensor
  TensorKind kind = TensorKind::value;
  std::string path;
  uint64_t offset = 0, size_bytes = 0;
  FileDType dtype = FileDType::f32;
  // Heads whose rows the file has as pairs (0, d/2, 1, d/2 + 1, ...) of an interleaved rotary embedding; 0: none.
  int32_t interleaved_heads = 0;
  int64_t rows = 0;  // those that the file has, when the tensor has more: the rest stays as it is; 0: all
};

struct TensorWrite {
  std::string name;
  TensorKind kind = TensorKind::value;
  FileDType dtype = FileDType::f32;  // f32, bf16, or u8 for codes
};

// Fills tensors from files; gradients, masters and moments are made when one is brought. A loaded value sets its master
// too, so values come before all others. Everything but the bytes is checked before the first tensor changes. Errors:
// io, permission_denied, corrupt_checkpoint (a file shorter than its header says, a size that does not fit the shape),
// invalid_argument (unknown name), out_of_memory, aborted. What was read before an error stays.
Status load_tensors(Weights& weights, const ThreadPool& pool, const std::vector<TensorRead>& reads,
                    const std::atomic<bool>& aborted);

// Writes `header`, then the tensors in order, row-major, and fsyncs. On failure the file is removed. Errors: disk_full,
// permission_denied, io, invalid_argument (unknown name, a kind that does not exist yet), aborted.
Status save_tensors(const Weights& weights, const ThreadPool& pool, const std::string& path,
                    const std::vector<uint8_t>& header, const std::vector<TensorWrite>& writes,
                    const std::atomic<bool>& aborted);

}  // namespace gavel
