// What the addon keeps per JavaScript environment (the main thread and every worker have their own): the error class,
// the classes it defines, and the kernels' scratch. Nothing of it is static. Errors are made here and nowhere else.
#pragma once
#include <napi.h>

#include "core/arena.h"
#include "core/context.h"
#include "core/status.h"

namespace gavel {

struct Environment {
  Napi::FunctionReference error_class;  // as given to setErrorClass; empty: plain Errors with code and fields
  Napi::FunctionReference engine_class;
  Napi::FunctionReference model_class;
  // Where the model of the NativeModel under construction waits; classes cannot be constructed from JavaScript.
  bool constructing = false;
  // For the synchronous kernels; engines have their own.
  ThreadPool pool{1};
  Scratch scratch;
  Arena arena;

  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }
};

// The JavaScript error of a status. With `site`, an Error made at the call, the stack is the caller's.
Napi::Value make_error(Napi::Env env, const Status& status, Napi::Value site = {});

// Throws it (a C++ exception that becomes the JavaScript one at the gate).
[[noreturn]] void throw_status(Napi::Env env, const Status& status);
inline void throw_if_error(Napi::Env env, const Status& status) {
  if (!status.ok()) throw_status(env, status);
}

}  // namespace gavel
