// Products of many rows by cuBLASLt, behind `linear`. The library reads rows, so a packed weight is unpacked first;
// from about 500 rows on that costs less than the product gains. Which of its algorithms may run is settled for each
// device, kind of product, dtype, N, K and epilogue:
//
// - In the exact mode an algorithm is on trial until its bits were those of our own kernel, which computes the results
//   meanwhile, in three calls and for three numbers of rows. One bit that differs, and the next algorithm is tried;
//   after the last, our kernel stays. A weight's gradient is always ours: its chain goes on from what is there.
// - In the fastest mode it is the first algorithm that the library proposes and does not refuse, asked for a fixed
//   number of rows, so the same for every batch.
#pragma once
#include "cuda/launch.cuh"

namespace gavel::cuda {

enum class ProductKind : uint8_t { forward, grad_x, grad_weight };

struct LibraryCall {
  ProductKind kind;
  DType dtype;
  int64_t rows, n, k;           // rows of x, and the weight's shape
  const void* left;             // x [rows, k]; of gradients, that of the result [rows, n]
  const void* right;            // the packed weight; of its gradient, x
  void* out;                    // [rows, n] or [rows, k]; the weight's gradient, packed fp32, is added to
  const void* added = nullptr;  // of the result's shape, may be `out`; null: nothing
  const void* bias = nullptr;   // [n]; null: none
  DType bias_dtype = DType::f32;
};

class LibraryProduct {
 public:
  /// Takes its workspace, whether the call is only measured or not.
  LibraryProduct(Launch& launch, const LibraryCall& call);
  /// True: enqueued. False: our own kernel is to compute the call, and judge() to be called after it.
  bool run();
  /// Compares the trial that run() may have begun. Waits for the device then.
  void judge();

 private:
  struct Standing;
  static Standing* standing_of(const Launch& launch, const LibraryCall& call);
  bool propose();
  bool multiply(int64_t row0, int64_t rows, const void* added, void* out);
  bool add_gradient();
  void unpack();
  bool enqueued(bool accepted);

  Launch& launch_;
  const LibraryCall call_;
  Standing* standing_ = nullptr;
  uint8_t *rows_ = nullptr, *workspace_ = nullptr, *trial_ = nullptr;
  int32_t* different_ = nullptr;
  int64_t trial_row_ = 0, trial_rows_ = 0;
  int tried_ = 0;  // the algorithm on trial
};

/// Calls that run() has given to the library in this process, trials left out.
uint64_t library_products();

}  // namespace gavel::cuda
