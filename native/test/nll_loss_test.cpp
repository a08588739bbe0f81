#include "train/nll_loss.h"

#include <limits>

#include "test/op_test.h"

namespace gavel::test {

TEST("nll_loss is the weighted sum and its gradient the weights") {
  const std::vector<float> logprob{-1.0f, -0.5f, std::numeric_limits<float>::quiet_NaN(), -2.0f},
      weight{0.25f, 0.5f, 0.0f, 1.0f};
  std::vector<float> grad(4, 7.0f);
  CHECK_NEAR(nll_loss<float>(4, logprob.data(), weight.data(), grad.data()), 0.25 + 0.25 + 2.0, 1e-12);
  CHECK_MAX_ABS((std::vector<double>(grad.begin(), grad.end())), (std::vector<double>{-0.25, -0.5, 0, -1}), 0);
  const std::vector<double> x = random_values(9, 1), w = random_values(9, 2);
  std::vector<double> gradient(9);
  nll_loss<double>(9, x.data(), w.data(), gradient.data());
  CHECK_LE(
      gradient_error([&](const std::vector<double>& at) { return nll_loss<double>(9, at.data(), w.data(), nullptr); },
                     x, gradient),
      1e-12);
}

}  // namespace gavel::test
