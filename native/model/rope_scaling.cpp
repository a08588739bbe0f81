#include "model/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

namespace gavel {
namespace {

constexpr int32_t kMostPositions = 2147483647;

// theta^(2 j / dim): the power is taken in double and rounded once, which is what fp32 libraries aim at.
std::vector<float> rope_powers(double theta, int32_t dim) {
  std::vector<float> result;
  for (int32_t j = 0; j < dim / 2; ++j) {
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(dim);
    result.push_back(
        static_cast<float>(std::pow(static_cast<double>(static_cast<float>(theta)), static_cast<double>(exponent))));
  }
  return result;
}

struct Lengths {
  double most, original;
};

Lengths lengths(ConfigReader& config) {
  const double most = config.number("max_position_embeddings", 0);
  double original = config.number("rope_parameters.original_max_position_embeddings", most);
  original = config.number("original_max_position_embeddings", original);
  if (!(original > 0 && original <= kMostPositions))
    config.refuse("Expected `rope_parameters.original_max_position_embeddings` or `max_position_embeddings` above 0.");
  return {most, original > 0 ? original : 1};
}

double read_factor(ConfigReader& config) {
  const double factor = config.number("rope_parameters.factor");
  if (!(factor > 0)) config.refuse("Expected a number above 0 for `rope_parameters.factor`.");
  return factor > 0 ? factor : 1;
}

// Of a factor that may be left to the two lengths.
double optional_factor(ConfigReader& config, const Lengths& length) {
  return config.has("rope_parameters.factor") ? read_factor(config) : length.most / length.original;
}

// Wavelengths beyond the original context are stretched, short ones kept, those between blended.
void llama3(ConfigReader& config, RopeScaling& rope) {
  const double factor = read_factor(config), low = config.number("rope_parameters.low_freq_factor"),
               high = config.number("rope_parameters.high_freq_factor"), original = lengths(config).original;
  if (!(low > 0 && high > low))
    config.refuse("Expected `rope_parameters.high_freq_factor` above `low_freq_factor`, which is above 0.");
  const float longest = static_cast<float>(original / low), shortest = static_cast<float>(original / high),
              divisor = static_cast<float>(factor), context = static_cast<float>(original),
              from = static_cast<float>(low), width = static_cast<float>(high - low);
  for (float& frequency : rope.inverse_frequency) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
    if (wavelength > longest) {
      frequency /= divisor;
    } else if (!(wavelength < shortest)) {
      const float smooth = (context / wavelength - from) / width;
      frequency = (1.0f - smooth) * frequency / divisor + smooth * frequency;
    }
  }
}

double yarn_attention(double factor, double scale) { return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0; }

void yarn(ConfigReader& config, RopeScaling& rope, double theta, int32_t dim) {
  const Lengths length = lengths(config);
  const double factor = optional_factor(config, length), mscale = config.number("rope_parameters.mscale", 0),
               mscale_all = config.number("rope_parameters.mscale_all_dim", 0);
  const double inferred = mscale != 0 && mscale_all != 0
                              ? yarn_attention(factor, mscale) / yarn_attention(factor, mscale_all)
                              : yarn_attention(factor, 1);
  rope.attention_factor = static_cast<float>(config.number("rope_parameters.attention_factor", inferred));
  const auto or_default = [&](const char* name, double otherwise) {
    const double value = config.number(name, otherwise);
    return value == 0 ? otherwise : value;
  };
  // The dimension that turns so often over the original context.
  const auto dimension = [&](double turns) {
    return dim * std::log(length.original / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  double low = dimension(or_default("rope_parameters.beta_fast", 32)),
         high = dimension(or_default("rope_parameters.beta_slow", 1));
  if (config.flag("rope_parameters.truncate", true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  const std::vector<float> powers = rope_powers(theta, dim);
  const float first = static_cast<float>(low), width = static_cast<float>(high - low);
  for (size_t j = 0; j < powers.size(); ++j) {
    const float ramp = std::clamp((static_cast<float>(j) - first) / width, 0.0f, 1.0f), kept = 1.0f - ramp;
    rope.inverse_frequency[j] =
        1.0f / (static_cast<float>(factor) * powers[j]) * (1.0f - kept) + 1.0f / powers[j] * kept;
  }
}

void longrope(ConfigReader& config, RopeScaling& rope, double theta, int32_t dim) {
  const Lengths length = lengths(config);
  const double factor = optional_factor(config, length);
  const double inferred =
      factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(std::max(length.original, 2.0)));
  rope.attention_factor = static_cast<float>(config.number("rope_parameters.attention_factor", inferred));
  const std::vector<double> near = config.numbers("rope_parameters.short_factor"),
                            far = config.numbers("rope_parameters.long_factor");
  if (near.size() != rope.inverse_frequency.size() || far.size() != near.size()) {
    config.refuse("Expected " + std::to_string(rope.inverse_frequency.size()) +
                  " numbers for `rope_parameters.short_factor` and `long_factor`, half the head size.");
    return;
  }
  const std::vector<float> powers = rope_powers(theta, dim);
  for (size_t j = 0; j < powers.size(); ++j)
    rope.inverse_frequency[j] = 1.0f / (static_cast<float>(near[j]) * powers[j]);
  if (near != far) {
    rope.position_limit = static_cast<int32_t>(length.original);
    rope.fixed_until_limit = true;
  }
}

// linear and yarn stretch what was trained; a config may name the length before or after that, so the larger one holds.
int32_t extended_positions(ConfigReader& config, const std::string& type) {
  double positions = config.number("max_position_embeddings", 0);
  if (!(positions >= 1)) return 0;
  const double original = type == "yarn" ? lengths(config).original : positions;
  if (type == "yarn" || type == "linear")
    positions = std::max(positions, original * config.number("rope_parameters.factor", 1));
  return static_cast<int32_t>(std::min(positions, static_cast<double>(kMostPositions)));
}

}  // namespace

std::vector<float> rope_inverse_frequency(double theta, int32_t dim) {
  std::vector<float> result = rope_powers(theta, dim);
  for (float& value : result) value = 1.0f / value;
  return result;
}

RopeScaling read_rope_scaling(ConfigReader& config, int32_t dim, double default_theta) {
  const double theta = config.number("rope_parameters.rope_theta", config.number("rope_theta", default_theta));
  if (!(theta > 1)) config.refuse("Expected a number above 1 for `rope_parameters.rope_theta`.");
  if (config.number("rope_parameters.partial_rotary_factor", config.number("partial_rotary_factor", 1)) != 1) {
    config.refuse_as(Code::unsupported,
                     "Expected `rope_parameters.partial_rotary_factor` of 1: heads that are rotated in part are not "
                     "built. Choose another checkpoint.");
  }
  RopeScaling rope;
  rope.inverse_frequency = rope_inverse_frequency(theta, dim);
  const std::string type = config.choice("rope_parameters.rope_type", "default",
                                         {"default", "mrope", "linear", "dynamic", "llama3", "yarn", "longrope"});
  if (!config.status().ok()) return rope;
  if (type == "linear") {
    const float factor = static_cast<float>(read_factor(config));
    for (float& frequency : rope.inverse_frequency) frequency /= factor;
  } else if (type == "dynamic") {
    rope.position_limit = config.integer("max_position_embeddings", kMostPositions);
    rope.fixed_until_limit = true;
  } else if (type == "llama3") {
    llama3(config, rope);
  } else if (type == "yarn") {
    yarn(config, rope, theta, dim);
  } else if (type == "longrope") {
    longrope(config, rope, theta, dim);
  }
  if (!rope.fixed_until_limit) rope.position_limit = extended_positions(config, type);
  for (float frequency : rope.inverse_frequency) {
    if (std::isfinite(frequency) && std::isfinite(rope.attention_factor)) continue;
    config.refuse("Expected `rope_parameters` that give finite frequencies.");
    break;
  }
  return rope;
}

}  // namespace gavel
