#include "model/tensor_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <set>
#include <utility>

#include "core/dtype.h"
#include "model/checked_file.h"

namespace gavel {
namespace {

// What a worker holds of a file at a time: it stays in the cache between reading and packing.
constexpr int64_t kChunkElements = int64_t{1} << 18;
// Pieces that one turn of the pool takes: other engines come in between.
constexpr int64_t kPiecesPerTurn = 64;

void encode(const float* values, size_t count, FileDType dtype, uint8_t* bytes) {
  if (dtype == FileDType::f32) {
    std::memcpy(bytes, values, count * 4);
    return;
  }
  if (dtype == FileDType::u8) {
    std::transform(values, values + count, bytes, [](float value) { return static_cast<uint8_t>(value); });
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    const uint16_t value = float_to_bf16(values[i]);
    std::memcpy(bytes + 2 * i, &value, 2);
  }
}

const char* kind_name(TensorKind kind) {
  constexpr const char* kNames[] = {"value",  "master", "moment1", "moment2", "gradient",
                                    "merged", "codes1", "codes2",  "scales1", "scales2"};
  return kNames[static_cast<size_t>(kind)];
}

const Tensor& tensor_of(const Parameter& parameter, TensorKind kind) {
  switch (kind) {
    case TensorKind::master:
      return parameter.master;
    case TensorKind::moment1:
      return parameter.moment1;
    case TensorKind::moment2:
      return parameter.moment2;
    case TensorKind::gradient:
      return parameter.grad;
    case TensorKind::codes1:
      return parameter.scales1 ? parameter.moment1 : parameter.scales1;
    case TensorKind::codes2:
      return parameter.scales2 ? parameter.moment2 : parameter.scales2;
    case TensorKind::scales1:
      return parameter.scales1;
    case TensorKind::scales2:
      return parameter.scales2;
    case TensorKind::value:
    case TensorKind::merged:
      break;
  }
  return parameter.value;
}

Status unknown(const std::string& name) {
  return Status::error(Code::invalid_argument, "Expected the name of a tensor of this model but received \"" + name +
                                                   "\". The names are those of its Hugging Face checkpoint.")
      .with("name", name);
}

Status missing(const std::string& name, TensorKind kind) {
  return Status::error(Code::invalid_argument, "Expected a " + std::string(kind_name(kind)) + " of \"" + name +
                                                   "\" but there is none: gradients and masters exist after the first "
                                                   "forwardBackward, moments after the first optimizer step, and only "
                                                   "for trainable tensors.")
      .with("name", name)
      .with("kind", kind_name(kind));
}

// Codes and nothing else are bytes in a file; a moment of codes is loaded as codes and scales.
Status check_stored(const Parameter& parameter, TensorKind kind, FileDType dtype, const std::string& name) {
  const bool fits = is_codes(kind) == (dtype == FileDType::u8);
  const bool whole = tensor_of(parameter, kind).dtype != DType::u8 || is_codes(kind);
  if (fits && whole) return Status::success();
  return Status::error(Code::invalid_argument, "Expected codes and scales for the 8-bit moments of \"" + name +
                                                   "\", and only for those, but received a " + kind_name(kind) +
                                                   ". Make the model with the optimizer states of the checkpoint.")
      .with("name", name)
      .with("kind", kind_name(kind));
}

// Gradients, masters and moments are made when somebody brings one.
Status ensure_kind(Weights& weights, TensorKind kind) {
  if (kind == TensorKind::gradient || kind == TensorKind::master) return weights.ensure_gradients();
  if (kind == TensorKind::value) return Status::success();
  GAVEL_RETURN_IF_ERROR(weights.ensure_gradients());
  return weights.ensure_moments();
}

// A tensor of a file against its place in the model.
struct Item {
  Parameter* parameter = nullptr;
  const SourceTensor* source = nullptr;
  TensorKind kind = TensorKind::value;
  FileDType dtype = FileDType::f32;
  uint64_t offset = 0;
  Weights::Extent size{};
  int64_t row_bytes = 0;
  int64_t head_rows = 0;  // of an interleaved head; 0: rows stand as they should

  TensorBlock block(int64_t row_begin, int64_t rows) const {
    return {source->row_begin + row_begin, source->col_begin, rows, size.cols};
  }
  bool stored_alike() const {
    const DType held = tensor_of(*parameter, kind).dtype;
    return kind == TensorKind::value &&
           ((dtype == FileDType::bf16 && held == DType::bf16) || (dtype == FileDType::f32 && held == DType::f32));
  }
};

struct Piece {
  const Item* item;
  int64_t row_begin, rows;
};

void add_pieces(const Item& item, std::vector<Piece>* pieces) {
  const int64_t unit = item.head_rows > 0 ? item.head_rows : kPanel;
  const int64_t fitting = kChunkElements / std::max<int64_t>(1, item.size.cols);
  const int64_t step = std::max(unit, fitting / unit * unit);
  for (int64_t begin = 0; begin < item.size.rows; begin += step) {
    pieces->push_back({&item, begin, std::min(step, item.size.rows - begin)});
  }
}

// Buffers of one worker, as large as the largest piece needs.
struct Buffers {
  std::vector<uint8_t> bytes, ordered;
  std::vector<float> values;
};

std::vector<Buffers> make_buffers(int workers, const std::vector<Piece>& pieces) {
  size_t bytes = 0, ordered = 0, values = 0;
  for (const Piece& piece : pieces) {
    const auto rows = static_cast<size_t>(piece.rows);
    bytes = std::max(bytes, rows * static_cast<size_t>(piece.item->row_bytes));
    values = std::max(values, rows * static_cast<size_t>(piece.item->size.cols));
    if (piece.item->head_rows > 0) ordered = std::max(ordered, rows * static_cast<size_t>(piece.item->row_bytes));
  }
  Buffers one;
  one.bytes.resize(bytes);
  one.ordered.resize(ordered);
  one.values.resize(values);
  return std::vector<Buffers>(static_cast<size_t>(workers), one);
}

// Runs `work(piece, buffers)` for every piece; the earliest piece that failed is the one that is reported.
template <class Work>
Status run_pieces(const ThreadPool& pool, const std::vector<Piece>& pieces, const std::atomic<bool>& aborted,
                  const char* doing, const Work& work) {
  std::vector<Buffers> buffers = make_buffers(pool.threads(), pieces);
  std::mutex mutex;
  std::atomic<bool> failed{false};
  int64_t failed_at = 0;
  Status failure = Status::success();
  const auto count = static_cast<int64_t>(pieces.size()), turn = kPiecesPerTurn * pool.threads();
  for (int64_t begin = 0; begin < count && !failed.load(); begin += turn) {
    if (aborted.load(std::memory_order_relaxed)) {
      return Status::error(Code::aborted, std::string(doing) + " was aborted.");
    }
    pool.parallel_for(std::min(turn, count - begin), [&](int64_t index, int worker) {
      if (failed.load(std::memory_order_relaxed) || aborted.load(std::memory_order_relaxed)) return;
      Status status = Status::success();
      try {
        status = work(pieces[static_cast<size_t>(begin + index)], buffers[static_cast<size_t>(worker)]);
      } catch (const std::bad_alloc&) {
        status = Status::error(Code::out_of_memory, "Expected memory for a chunk of a file but there was none.");
      }
      if (status.ok()) return;
      std::lock_guard lock(mutex);
      if (failed.load() && failed_at < begin + index) return;
      failed_at = begin + index;
      failure = std::move(status);
      failed.store(true);
    });
  }
  if (failed.load()) return failure;
  if (aborted.load()) return Status::error(Code::aborted, std::string(doing) + " was aborted.");
  return Status::success();
}

Status wrong_bytes(const TensorRead& read, const std::string& expected, const std::string& received) {
  return Status::error(Code::corrupt_checkpoint, "Expected " + expected + " for \"" + read.name + "\" but \"" +
                                                     read.path + "\" holds " + received +
                                                     ". Fetch or write the checkpoint again.")
      .with("name", read.name)
      .with("path", read.path);
}

Status make_read(Weights& weights, const TensorRead& read, Item* item) {
  GAVEL_RETURN_IF_ERROR(ensure_kind(weights, read.kind));
  item->parameter = weights.find(read.name, &item->source);
  if (item->parameter == nullptr) return unknown(read.name);
  const bool readable = read.kind != TensorKind::merged && static_cast<bool>(tensor_of(*item->parameter, read.kind));
  if (!readable) return missing(read.name, read.kind);
  GAVEL_RETURN_IF_ERROR(check_stored(*item->parameter, read.kind, read.dtype, read.name));
  item->kind = read.kind;
  item->dtype = read.dtype;
  item->offset = read.offset;
  item->size = Weights::extent(*item->parameter, *item->source, read.kind);
  if (read.rows > 0 && read.rows < item->size.rows) item->size.rows = read.rows;
  const BlockSize block = block_size(read.dtype);
  if (item->size.cols % block.elements != 0) {
    return wrong_bytes(read, "rows of whole blocks of " + std::to_string(block.elements),
                       "rows of " + std::to_string(item->size.cols));
  }
  item->row_bytes = item->size.cols / block.elements * block.bytes;
  const uint64_t expected = static_cast<uint64_t>(item->size.rows) * static_cast<uint64_t>(item->row_bytes);
  if (read.size_bytes != expected) {
    return wrong_bytes(read, std::to_string(expected) + " bytes", std::to_string(read.size_bytes));
  }
  if (read.interleaved_heads > 0) {
    item->head_rows = item->size.rows / read.interleaved_heads;
    if (item->size.rows % read.interleaved_heads != 0 || item->head_rows % 2 != 0) {
      return wrong_bytes(read,
                         "an even number of rows for each of " + std::to_string(read.interleaved_heads) + " heads",
                         std::to_string(item->size.rows) + " rows");
    }
  }
  return Status::success();
}

// Row 2 i + j of a head in the file is row j d/2 + i of the model.
const uint8_t* order_rows(const Piece& piece, Buffers& buffers) {
  const Item& item = *piece.item;
  if (item.head_rows == 0) return buffers.bytes.data();
  const auto size = static_cast<size_t>(item.row_bytes);
  for (int64_t row = 0; row < piece.rows; ++row) {
    const int64_t in_head = row % item.head_rows, head = row - in_head;
    const int64_t to = head + in_head % 2 * (item.head_rows / 2) + in_head / 2;
    std::memcpy(buffers.ordered.data() + static_cast<size_t>(to) * size,
                buffers.bytes.data() + static_cast<size_t>(row) * size, size);
  }
  return buffers.ordered.data();
}

Status load_piece(Weights& weights, const CheckedFile& file, const Piece& piece, Buffers& buffers) {
  const Item& item = *piece.item;
  const int64_t size = piece.rows * item.row_bytes;
  GAVEL_RETURN_IF_ERROR(file.read_at(item.offset + static_cast<uint64_t>(piece.row_begin * item.row_bytes),
                                     buffers.bytes.data(), static_cast<size_t>(size)));
  const uint8_t* bytes = order_rows(piece, buffers);
  if (item.stored_alike() && !item.parameter->master) {
    weights.write_stored_rows(*item.parameter, item.block(piece.row_begin, piece.rows), bytes);
    return Status::success();
  }
  decode_elements(bytes, piece.rows * item.size.cols, item.dtype, buffers.values.data());
  weights.write_rows(*item.parameter, *item.source, item.kind, piece.row_begin, piece.rows, buffers.values.data());
  return Status::success();
}

// One pass over the reads of `wanted` kinds, file after file.
template <class Wanted>
Status load_kinds(Weights& weights, const ThreadPool& pool, const std::vector<TensorRead>& reads,
                  const std::vector<Item>& items, const std::atomic<bool>& aborted, const Wanted& wanted) {
  CheckedFile file;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < reads.size(); ++i) {
    if (wanted(reads[i].kind)) add_pieces(items[i], &pieces);
    const bool last = i + 1 == reads.size() || reads[i + 1].path != reads[i].path;
    if (!last || pieces.empty()) continue;
    GAVEL_RETURN_IF_ERROR(file.open(reads[i].path, O_RDONLY, "open"));
    file.expect_sequential();
    GAVEL_RETURN_IF_ERROR(run_pieces(pool, pieces, aborted, "Loading", [&](const Piece& piece, Buffers& buffers) {
      return load_piece(weights, file, piece, buffers);
    }));
    pieces.clear();
  }
  return Status::success();
}

Status make_write(const Weights& weights, const TensorWrite& write, Item* item) {
  item->parameter = const_cast<Weights&>(weights).find(write.name, &item->source);
  if (item->parameter == nullptr) return unknown(write.name);
  if (!tensor_of(*item->parameter, write.kind)) return missing(write.name, write.kind);
  if (write.dtype == FileDType::u8 && !is_codes(write.kind)) return missing(write.name, write.kind);
  item->kind = write.kind;
  item->dtype = write.dtype;
  item->size = Weights::extent(*item->parameter, *item->source, write.kind);
  item->row_bytes = item->size.cols * block_size(write.dtype).bytes;
  return Status::success();
}

void fill_piece(const Weights& weights, const Piece& piece, Buffers& buffers) {
  const Item& item = *piece.item;
  if (item.stored_alike()) {
    return weights.read_stored_rows(*item.parameter, item.block(piece.row_begin, piece.rows), buffers.bytes.data());
  }
  weights.read_rows(*item.parameter, *item.source, item.kind, piece.row_begin, piece.rows, buffers.values.data());
  encode(buffers.values.data(), static_cast<size_t>(piece.rows * item.size.cols), item.dtype, buffers.bytes.data());
}

Status write_all(const Weights& weights, const ThreadPool& pool, CheckedFile& file, const std::vector<uint8_t>& header,
                 const std::vector<Item>& items, const std::atomic<bool>& aborted) {
  std::vector<Piece> pieces;
  for (const Item& item : items) add_pieces(item, &pieces);
  GAVEL_RETURN_IF_ERROR(file.write(header.data(), header.size()));
  // A pipe takes its bytes in order, from one thread.
  const bool anywhere = file.is_regular();
  const ThreadPool alone(1);
  GAVEL_RETURN_IF_ERROR(run_pieces(
      anywhere ? pool : alone, pieces, aborted, "Saving", [&](const Piece& piece, Buffers& buffers) -> Status {
        fill_piece(weights, piece, buffers);
        const auto size = static_cast<size_t>(piece.rows * piece.item->row_bytes);
        if (!anywhere) return file.write(buffers.bytes.data(), size);
        const auto offset = piece.item->offset + static_cast<uint64_t>(piece.row_begin * piece.item->row_bytes);
        return file.write_at(offset, buffers.bytes.data(), size);
      }));
  return file.sync_and_close();
}

}  // namespace

Status load_tensors(Weights& weights, const ThreadPool& pool, const std::vector<TensorRead>& reads,
                    const std::atomic<bool>& aborted) {
  std::vector<Item> items(reads.size());
  std::set<std::pair<std::string, TensorKind>> seen;
  for (size_t i = 0; i < reads.size(); ++i) {
    GAVEL_RETURN_IF_ERROR(make_read(weights, reads[i], &items[i]));
    if (seen.emplace(reads[i].name, reads[i].kind).second) continue;
    return Status::error(Code::invalid_argument,
                         "Expected every tensor once but received \"" + reads[i].name + "\" twice. Name each once.")
        .with("name", reads[i].name);
  }
  // Scales belong to a whole parameter and may come with each of its sources: one thread writes them.
  const ThreadPool alone(1);
  GAVEL_RETURN_IF_ERROR(
      load_kinds(weights, pool, reads, items, aborted, [](TensorKind kind) { return kind == TensorKind::value; }));
  GAVEL_RETURN_IF_ERROR(load_kinds(weights, pool, reads, items, aborted,
                                   [](TensorKind kind) { return kind != TensorKind::value && !is_scales(kind); }));
  GAVEL_RETURN_IF_ERROR(load_kinds(weights, alone, reads, items, aborted, is_scales));
  return weights.memory().finish();
}

Status save_tensors(const Weights& weights, const ThreadPool& pool, const std::string& path,
                    const std::vector<uint8_t>& header, const std::vector<TensorWrite>& writes,
                    const std::atomic<bool>& aborted) {
  std::vector<Item> items(writes.size());
  uint64_t offset = header.size();
  for (size_t i = 0; i < writes.size(); ++i) {
    GAVEL_RETURN_IF_ERROR(make_write(weights, writes[i], &items[i]));
    items[i].offset = offset;
    offset += static_cast<uint64_t>(items[i].size.rows * items[i].row_bytes);
  }
  CheckedFile file;
  GAVEL_RETURN_IF_ERROR(file.open(path, O_WRONLY | O_CREAT | O_TRUNC, "create"));
  const bool regular = file.is_regular();
  Status status = write_all(weights, pool, file, header, items, aborted);
  if (status.ok()) status = weights.memory().finish();
  if (!status.ok() && regular) ::unlink(path.c_str());
  return status;
}

}  // namespace gavel
