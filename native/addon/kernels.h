// The `kernels` object of the contract: single CPU kernels on typed arrays, synchronous, through the same op table the
// models use.
#pragma once
#include <napi.h>

namespace gavel {

Napi::Object define_kernels(Napi::Env env);

}  // namespace gavel
