#include "cuda/cublaslt.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <type_traits>

namespace gavel::cuda {

bool load_cublaslt(const std::string& file, CublasLt* library, std::string* error) {
  void* handle = nullptr;
  for (const char* name : {file.c_str(), "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
    if (handle != nullptr || name[0] == '\0') continue;
    handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr && !file.empty()) break;
  }
  if (handle == nullptr) {
    const char* const why = dlerror();
    *error = why == nullptr ? "not found" : why;
    return false;
  }
  const auto find = [&](auto* function, const char* name) {
    *function = reinterpret_cast<std::remove_reference_t<decltype(*function)>>(dlsym(handle, name));
    if (*function == nullptr) *error = std::string("the library has no ") + name;
    return *function != nullptr;
  };
  return find(&library->create, "cublasLtCreate") && find(&library->destroy, "cublasLtDestroy") &&
         find(&library->version, "cublasLtGetVersion") && find(&library->describe, "cublasLtMatmulDescCreate") &&
         find(&library->describe_set, "cublasLtMatmulDescSetAttribute") &&
         find(&library->describe_destroy, "cublasLtMatmulDescDestroy") &&
         find(&library->layout, "cublasLtMatrixLayoutCreate") &&
         find(&library->layout_destroy, "cublasLtMatrixLayoutDestroy") &&
         find(&library->preference, "cublasLtMatmulPreferenceCreate") &&
         find(&library->preference_set, "cublasLtMatmulPreferenceSetAttribute") &&
         find(&library->preference_destroy, "cublasLtMatmulPreferenceDestroy") &&
         find(&library->propose, "cublasLtMatmulAlgoGetHeuristic") &&
         find(&library->check, "cublasLtMatmulAlgoCheck") && find(&library->multiply, "cublasLtMatmul");
}

const CublasLt* cublaslt(std::string* why) {
  struct Found {
    CublasLt library;
    std::string error;
    bool loaded = false;
    Found() {
      const char* const named = std::getenv("GAVEL_CUBLASLT");
      const std::string file = named == nullptr ? "" : named;
      if (file == "off") {
        error = "GAVEL_CUBLASLT is 'off'";
      } else {
        loaded = load_cublaslt(file, &library, &error);
      }
    }
  };
  static const Found found;
  if (why != nullptr) *why = found.error;
  return found.loaded ? &found.library : nullptr;
}

void cublaslt_version(char* text, size_t size) {
  std::string why;
  const CublasLt* const library = cublaslt(&why);
  if (library == nullptr) {
    std::snprintf(text, size, "none: %s", why.c_str());
    return;
  }
  // 12.8.4 is 120804.
  const size_t version = library->version();
  std::snprintf(text, size, "%zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace gavel::cuda
