{
  "includes": ["native/sources.json"],
  "targets": [
    {
      "target_name": "gavel",
      "sources": ["<@(core_sources)", "<@(binding_sources)"],
      "include_dirs": ["native", "<(SHARED_INTERMEDIATE_DIR)"],
      "dependencies": ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except_all"],
      "defines": ["NAPI_VERSION=8"],
      "cflags": ["-O3", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"],
      "cflags_cc": [
        "-std=gnu++20",
        "-fvisibility-inlines-hidden",
        "-Wall",
        "-Wextra",
        "-Wno-uninitialized",
        "-Wno-maybe-uninitialized"
      ],
      "cflags_cc!": ["-std=gnu++17", "-fno-rtti"],
      "libraries": ["-ldl", "-pthread"],
      "actions": [
        {
          "action_name": "build_id",
          "inputs": ["native/sources.json", "package.json", "<@(core_sources)", "<@(binding_sources)"],
          "outputs": ["<(SHARED_INTERMEDIATE_DIR)/gavel_build_id.h"],
          "action": ["node", "scripts/build-id.mjs", "<@(_outputs)"]
        }
      ]
    }
  ]
}
