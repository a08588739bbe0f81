#include "addon/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "addon/arguments.h"
#include "addon/environment.h"
#include "addon/inputs.h"
#include "addon/outputs.h"
#include "addon/policy_kernels.h"
#include "addon/ranking_kernel.h"
#include "core/threads.h"
#include "model/attention_plan.h"
#include "ops/all.h"

namespace gavel {
namespace {

constexpr size_t kSlack = 128;  // vectors may be read 64 bytes past their end

// Memory and context of one synchronous call. `bytes` bounds what the call allocates.
class Call {
 public:
  Call(Napi::Env env, size_t bytes) : environment_(Environment::of(env)) {
    environment_.arena.reset();
    throw_if_error(env, choose_path("", &path_));
    throw_if_error(env, environment_.arena.reserve(bytes + 16 * kSlack));
  }
  ~Call() { environment_.arena.reset(); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  template <class Element>
  Tensor tensor(Shape shape, DType dtype, const std::vector<Element>& values) {
    Tensor made = tensor(shape, dtype);
    if (!values.empty()) std::memcpy(made.data, values.data(), values.size() * sizeof(Element));
    return made;
  }
  Tensor tensor(Shape shape, DType dtype) {
    Tensor made;
    const size_t size = static_cast<size_t>(shape.count()) * dtype_size(dtype);
    made.data = environment_.arena.allocate(size + kSlack);
    made.shape = shape;
    made.dtype = dtype;
    return made;
  }
  // A matrix [N, K] in the layout the kernels read.
  template <class Element>
  Tensor panels(int64_t n, int64_t k, DType dtype, const Element* rows) {
    Tensor made = tensor(Shape{panel_count(n, k)}, dtype);
    std::memset(made.data, 0, static_cast<size_t>(panel_count(n, k)) * sizeof(Element));
    Element* packed = static_cast<Element*>(made.data);
    for (int64_t row = 0; row < n; ++row) {
      for (int64_t column = 0; column < k; ++column) {
        packed[panel_index(row, column, k, dtype)] = rows[row * k + column];
      }
    }
    made.shape = Shape{n, k};
    made.layout = Layout::panels;
    return made;
  }

  template <class Parameters>
  void forward(Op op, const Parameters& parameters) {
    Context context{&environment_.pool, &environment_.scratch, path_.isa, path_.amx};
    FlushDenormals flush;
    cpu_ops()[op].forward(context, &parameters);
  }

 private:
  Environment& environment_;
  CpuPath path_;
};

std::vector<float> values_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.shape.count()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = tensor.dtype == DType::bf16 ? bf16_to_float(tensor.bf16()[i]) : tensor.f32()[i];
  }
  return values;
}

template <class Element>
void demand_count(const Argument& argument, const std::vector<Element>& values, int64_t count) {
  if (static_cast<int64_t>(values.size()) != count) argument.fail(std::to_string(count) + " elements");
}

std::vector<uint16_t> uint16s(const Argument& argument) {
  const Napi::Value value = argument.value();
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint16_array) {
    argument.fail("Uint16Array (bf16), as the other operand is,");
  }
  const auto array = value.As<Napi::Uint16Array>();
  std::vector<uint16_t> copy(array.ElementLength());
  if (!copy.empty()) std::memcpy(copy.data(), array.Data(), copy.size() * sizeof(uint16_t));
  return copy;
}

bool is_uint16(const Napi::Value& value) {
  return value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_uint16_array;
}

template <class Element>
Napi::Value linear_of(Napi::Env env, DType dtype, const std::vector<Element>& x, const std::vector<Element>& weight,
                      int64_t m, int64_t n, int64_t k) {
  Call call(env, (static_cast<size_t>(m * k + m * n) + static_cast<size_t>(panel_count(n, k))) * sizeof(Element));
  Linear linear;
  linear.x = call.tensor(Shape{m, k}, dtype, x);
  linear.weight = call.panels(n, k, dtype, weight.data());
  linear.out = call.tensor(Shape{m, n}, dtype);
  call.forward(Op::linear, linear);
  return floats_to_js(env, values_of(linear.out));
}

Napi::Value linear(const Napi::CallbackInfo& info) {
  const Argument x(info[0], "x"), weight(info[1], "weight");
  const int64_t m = Argument(info[2], "m").integer(1, kMaxInt32), n = Argument(info[3], "n").integer(1, kMaxInt32),
                k = Argument(info[4], "k").integer(1, kMaxInt32);
  const auto compute = [&](DType dtype, const auto& rows, const auto& matrix) {
    demand_count(x, rows, m * k);
    demand_count(weight, matrix, n * k);
    return linear_of(info.Env(), dtype, rows, matrix, m, n, k);
  };
  if (is_uint16(x.value())) return compute(DType::bf16, uint16s(x), uint16s(weight));
  return compute(DType::f32, x.float32s(), weight.float32s());
}

Napi::Value rms_norm(const Napi::CallbackInfo& info) {
  const Argument x(info[0], "x"), weight(info[1], "weight");
  const std::vector<float> rows = x.float32s(), scale = weight.float32s();
  const int64_t h = static_cast<int64_t>(scale.size());
  if (h == 0) weight.fail("at least one element");
  const int64_t t = static_cast<int64_t>(rows.size()) / h;
  if (t == 0 || t * h != static_cast<int64_t>(rows.size())) x.fail("a whole number of rows of " + std::to_string(h));
  Call call(info.Env(), (rows.size() * 2 + scale.size() + static_cast<size_t>(t)) * sizeof(float));
  RmsNorm norm;
  norm.eps = static_cast<float>(Argument(info[2], "eps").number(0, 1));
  norm.x = call.tensor(Shape{t, h}, DType::f32, rows);
  norm.weight = call.tensor(Shape{h}, DType::f32, scale);
  norm.out = call.tensor(Shape{t, h}, DType::f32);
  norm.inverse_rms = call.tensor(Shape{t}, DType::f32);
  call.forward(Op::rms_norm, norm);
  return floats_to_js(info.Env(), values_of(norm.out));
}

Napi::Value attention(const Napi::CallbackInfo& info) {
  const Argument options(info[3], "options");
  const int64_t t = options["tokens"].integer(1, 1 << 20);
  const int32_t query_heads = static_cast<int32_t>(options["queryHeads"].integer(1, 1024));
  const int32_t kv_heads = static_cast<int32_t>(options["kvHeads"].integer(1, 1024));
  const int32_t head_dim = static_cast<int32_t>(options["headDim"].integer(16, 256));
  if (head_dim % 16 != 0) options["headDim"].fail("a multiple of 16");
  if (query_heads % kv_heads != 0) options["queryHeads"].fail("a multiple of `options.kvHeads`");
  const bool causal = options["causal"].boolean();
  const int64_t q_columns = int64_t{query_heads} * head_dim, kv_columns = int64_t{kv_heads} * head_dim;
  const Argument arguments[] = {{info[0], "q"}, {info[1], "k"}, {info[2], "v"}};
  const std::vector<float> parts[] = {arguments[0].float32s(), arguments[1].float32s(), arguments[2].float32s()};
  const int64_t columns[] = {q_columns, kv_columns, kv_columns};
  for (int i = 0; i < 3; ++i) demand_count(arguments[i], parts[i], t * columns[i]);

  PlanBuilder builder(static_cast<int32_t>(t));
  const RowRange rows{0, static_cast<int32_t>(t)};
  if (causal) {
    builder.add_group(rows, {});
  } else {
    builder.add_segment(rows);
  }
  const OwnedPlan owned = std::move(builder).finish();
  const AttentionPlan plan = owned.view();
  const int64_t width = q_columns + 2 * kv_columns, store = owned.store_elements(kv_heads, head_dim);
  Call call(info.Env(), static_cast<size_t>(t * (width + q_columns + query_heads) + store) * sizeof(float));
  Attention op;
  op.qkv = call.tensor(Shape{t, width}, DType::f32);
  op.out = call.tensor(Shape{t, q_columns}, DType::f32);
  op.lse = call.tensor(Shape{t, query_heads}, DType::f32);
  op.store.data = call.tensor(Shape{store}, DType::f32).data;
  op.plan = &plan;
  op.query_heads = query_heads;
  op.kv_heads = kv_heads;
  op.head_dim = head_dim;
  op.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (int64_t row = 0; row < t; ++row) {
    float* out = op.qkv.f32() + row * width;
    for (int i = 0; i < 3; ++i) {
      std::memcpy(out, parts[i].data() + row * columns[i], static_cast<size_t>(columns[i]) * sizeof(float));
      out += columns[i];
    }
  }
  call.forward(Op::attention, op);
  return floats_to_js(info.Env(), values_of(op.out));
}

Napi::Value logprobs(const Napi::CallbackInfo& info) {
  const Argument options(info[3], "options"), hidden(info[0], "hidden"), weight(info[1], "weight"),
      given(info[2], "tokens");
  const int64_t h = options["hiddenSize"].integer(1, 1 << 20), v = options["vocabulary"].integer(1, 1 << 24);
  const double temperature = options["temperature"].number();
  if (temperature <= 0) options["temperature"].fail("a number > 0");
  const std::vector<int32_t> tokens = given.int32s();
  const std::vector<float> x = hidden.float32s(), w = weight.float32s();
  const int64_t t = static_cast<int64_t>(tokens.size());
  if (t == 0) given.fail("at least one token");
  for (int32_t token : tokens) {
    if (token < 0 || token >= v) given.fail("token ids from 0 to " + std::to_string(v - 1));
  }
  demand_count(hidden, x, t * h);
  demand_count(weight, w, v * h);
  Call call(info.Env(), (x.size() + static_cast<size_t>(panel_count(v, h))) * sizeof(float));
  std::vector<int32_t> rows(tokens.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  const std::vector<float> inverse(tokens.size(), static_cast<float>(1.0 / temperature));
  std::vector<float> logprob(tokens.size()), normalizer(tokens.size()), entropy(tokens.size());
  HeadLogprob head;
  head.hidden = call.tensor(Shape{t, h}, DType::f32, x);
  head.weight = call.panels(v, h, DType::f32, w.data());
  head.num_targets = static_cast<int32_t>(t);
  head.rows = rows.data();
  head.tokens = tokens.data();
  head.inverse_temperature = inverse.data();
  head.logprob = logprob.data();
  head.log_normalizer = normalizer.data();
  head.entropy = entropy.data();
  call.forward(Op::head_logprob, head);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("logprobs", floats_to_js(info.Env(), std::move(logprob)));
  result.Set("entropies", floats_to_js(info.Env(), std::move(entropy)));
  return result;
}

float log_normalizer(const float* logits, int64_t count) {
  double maximum = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t i = 0; i < count; ++i) maximum = std::max(maximum, static_cast<double>(logits[i]));
  for (int64_t i = 0; i < count; ++i) sum += std::exp(static_cast<double>(logits[i]) - maximum);
  return static_cast<float>(maximum + std::log(sum));
}

Napi::Value sample_tokens(const Napi::CallbackInfo& info) {
  const Argument given(info[0], "logits"), options(info[1], "options");
  const int64_t v = options["vocabulary"].integer(1, 1 << 24);
  const std::vector<float> logits = given.float32s();
  const int64_t b = static_cast<int64_t>(logits.size()) / v;
  if (b == 0 || b * v != static_cast<int64_t>(logits.size()))
    given.fail("a whole number of rows of " + std::to_string(v));
  SampleOptions draw;
  draw.top_k = static_cast<int32_t>(options["topK"].integer(0, kMaxInt32));
  draw.top_p = static_cast<float>(options["topP"].number(0, 1));
  draw.min_p = static_cast<float>(options["minP"].number(0, 1));
  draw.greedy = options["greedy"].boolean();
  draw.key.seed = options["seed"].counter();
  const size_t rows = static_cast<size_t>(b);
  std::vector<SampleOptions> draws(rows, draw);
  std::vector<float> normalizers(rows), logprob(rows), kept(rows);
  for (size_t row = 0; row < rows; ++row) {
    draws[row].key.item = row;
    normalizers[row] = log_normalizer(logits.data() + static_cast<int64_t>(row) * v, v);
  }
  std::vector<int32_t> tokens(rows);
  SampleToken sample;
  sample.num_rows = static_cast<int32_t>(b);
  sample.vocabulary = static_cast<int32_t>(v);
  sample.logits = logits.data();
  sample.log_normalizer = normalizers.data();
  sample.options = draws.data();
  sample.tokens = tokens.data();
  sample.logprob = logprob.data();
  sample.log_kept_mass = kept.data();
  Call call(info.Env(), 0);
  call.forward(Op::sample_token, sample);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("tokens", ints_to_js(info.Env(), tokens));
  result.Set("logprobs", floats_to_js(info.Env(), std::move(logprob)));
  result.Set("logKeptMass", floats_to_js(info.Env(), std::move(kept)));
  return result;
}

}  // namespace

Napi::Object define_kernels(Napi::Env env) {
  Napi::Object kernels = Napi::Object::New(env);
  kernels.Set("dpoLoss", Napi::Function::New<dpo_loss_kernel>(env, "dpoLoss"));
  kernels.Set("grpoLoss", Napi::Function::New<grpo_loss_kernel>(env, "grpoLoss"));
  kernels.Set("rankingLoss", Napi::Function::New<ranking_loss_kernel>(env, "rankingLoss"));
  kernels.Set("linear", Napi::Function::New<linear>(env, "linear"));
  kernels.Set("rmsNorm", Napi::Function::New<rms_norm>(env, "rmsNorm"));
  kernels.Set("attention", Napi::Function::New<attention>(env, "attention"));
  kernels.Set("logprobs", Napi::Function::New<logprobs>(env, "logprobs"));
  kernels.Set("sampleTokens", Napi::Function::New<sample_tokens>(env, "sampleTokens"));
  return kernels;
}

}  // namespace gavel
