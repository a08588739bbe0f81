// The identity of this build: package version and a hash over the native sources. The addon and the CUDA plugin share
// structs by layout, so a plugin whose id differs is refused instead of being called.
#pragma once

namespace gavel {

/// "0.1.0-0123456789abcdef"; static storage.
const char* build_id();

}  // namespace gavel
