#!/usr/bin/env bash
# Everything a machine with an NVIDIA GPU can say, in one go and without Node: build, device tests, compute-sanitizer, machine
# code, kernel benchmarks, peers. Needs nvcc, CMake and a C++20 compiler; Python with PyTorch and transformers for the peers.
# Usage: scripts/cuda-all.sh [FOLDER] [STAGE...]   stages: build tests sanitize sass bench peers (all of them, in this order)
#   FOLDER   where the outputs go ($OUT, else build-gpu/out). The build itself lies in build-gpu and is kept.
# Limits in seconds: of a stage BUILD_S, TESTS_S, SANITIZE_S, SASS_S, BENCH_S, PEERS_S, of all ALL_S (1740). A stage that fails or
# runs out of time costs its own result alone. Ends with a line a stage, and 0 when all passed. GAVEL_COMMIT names the commit.
set -u
cd "$(dirname "$0")/.." || exit 1
stages='build tests sanitize sass bench peers'

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "$0"
  exit "$1"
}
out=${OUT:-build-gpu/out}
if [ $# -gt 0 ]; then
  case " $stages " in
    *" $1 "*) ;;
    *)
      case $1 in
        -h | --help) usage 0 ;;
        -*)
          echo "Expected a folder or one of: $stages, but received '$1'." >&2
          usage 2
          ;;
      esac
      out=$1
      shift
      ;;
  esac
fi
for name in "$@"; do
  case " $stages " in
    *" $name "*) ;;
    *)
      echo "Expected one of: $stages, but received '$name'." >&2
      exit 2
      ;;
  esac
done
chosen=" ${*:-$stages} "
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
build=build-gpu
programs=$build/Release
commit=${GAVEL_COMMIT:-$(git rev-parse --short=10 HEAD 2>/dev/null || echo unknown)}
export GAVEL_COMMIT=$commit GAVEL_REQUIRE_CUDA=1
python=${GAVEL_PEER_PYTHON:-python3}
cuda=${CUDA_HOME:-${CUDA_PATH:-/usr/local/cuda}}
export PATH="$PATH:$cuda/bin"
failed=0
: >"$out/summary.txt"

# stage NAME SECONDS COMMAND...: its output goes to NAME.log and, its end, to the terminal.
stage() {
  local name=$1 limit=$2 start=$SECONDS rc word left=$((${ALL_S:-1740} - SECONDS))
  shift 2
  if [ "$left" -lt 5 ]; then
    failed=$((failed + 1))
    printf '%-22s %s\n' "$name" 'not begun: no time left' | tee -a "$out/summary.txt"
    return 1
  fi
  [ "$limit" -le "$left" ] || limit=$left
  printf '\n=== %s (at most %s s)\n' "$name" "$limit"
  timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
  rc=$?
  tail -n 12 "$out/$name.log"
  case $rc in
    0) word=passed ;;
    124 | 137) word="out of time" ;;
    *) word="failed ($rc)" ;;
  esac
  [ "$rc" -eq 0 ] || failed=$((failed + 1))
  printf '%-22s %-12s %5d s\n' "$name" "$word" $((SECONDS - start)) | tee -a "$out/summary.txt"
  return "$rc"
}
wanted() { case $chosen in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# Only the card that is there: a third of the compilation.
architecture() {
  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ' |
    sed 's/^90$/90a/; s/$/-real/; /^-real$/d'
}
build_all() {
  local arch generator=()
  arch=$(architecture)
  if command -v ninja >/dev/null; then generator=(-G Ninja); fi
  cmake -S . -B "$build" "${generator[@]}" -DGAVEL_NODE_ADDON=OFF -DGAVEL_CUDA=ON ${arch:+"-DCMAKE_CUDA_ARCHITECTURES=$arch"} &&
    cmake --build "$build" --parallel "$(nproc)" --target gavel_cuda_tests gavel_cuda_bench gavel_native_tests
}

# A tool prints what it found and a last line; the case lists run whole under each, racecheck (the slowest) last.
sanitize() {
  local tool=$1
  shift
  compute-sanitizer --tool "$tool" --error-exitcode 1 "$@" "$programs/gavel_cuda_tests"
}

# Without Node: no local memory but where it is meant, tensor cores in the plugin at all. scripts/check-sass.mjs says more.
machine_code() {
  cuobjdump --dump-sass "$programs/gavel-cuda.so" >"$out/plugin.sass" || return 1
  awk '/Function :/ { name = $3; kernels++ }
       /HMMA\.16816\.F32\.BF16/ { products++ } /HGMMA/ { groups++ }
       /\t? *(LDL|STL)[. ]/ && name !~ /rope_table/ && !(name in seen) { seen[name] = 1; spills++; print "local memory: " name }
       END { printf "%d kernels, %d tensor core products, %d of warp groups, %d kernels with local memory\n", kernels, products, groups, spills
             exit !(kernels > 0 && products > 0 && spills == 0) }' "$out/plugin.sass"
  local rc=$?
  gzip -f "$out/plugin.sass"
  if command -v node >/dev/null; then node scripts/check-sass.mjs "$programs/gavel-cuda.so" || rc=1; fi
  return "$rc"
}

# The vendor's library where the loader does not know it: beside PyTorch's.
vendor_library() {
  local file
  ldconfig -p 2>/dev/null | grep -q 'libcublasLt\.so' && return
  for file in "$cuda"/lib64/libcublasLt.so.*; do
    if [ -e "$file" ]; then
      echo "$file"
      return
    fi
  done
  "$python" - <<'PY' 2>/dev/null
import glob, os, site, sysconfig
roots = {sysconfig.get_paths()["purelib"], *site.getsitepackages()}
found = [f for r in roots for f in glob.glob(os.path.join(r, "nvidia", "**", "libcublasLt.so.*"), recursive=True)]
print(sorted(found)[-1] if found else "")
PY
}
bench() {
  local library
  library=$(vendor_library)
  rm -f "$out/cuda.jsonl"
  "$programs/gavel_cuda_bench" --commit "$commit" --out "$out/cuda.jsonl" ${library:+--cublaslt "$library"} \
    --seconds "${BENCH_CASE_S:-0.3}"
}
peer() {
  local program=$1
  shift
  "$python" "bench/peers/$program.py" --out "$out/cuda_peers.jsonl" --commit "$commit" "$@"
}
export -f architecture build_all sanitize machine_code vendor_library bench peer
export out build programs commit python cuda

{
  echo "commit $commit; $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader 2>&1
  nvcc --version 2>&1 | tail -n 2
  cmake --version 2>&1 | head -n 1
} | tee "$out/machine.txt"

if wanted build; then stage build "${BUILD_S:-420}" bash -c build_all || exit 1; fi
if wanted tests; then
  stage tests-device "${TESTS_S:-180}" "$programs/gavel_cuda_tests"
  stage tests-processor "${TESTS_S:-180}" "$programs/gavel_native_tests" golden
fi
if wanted sass; then stage sass "${SASS_S:-150}" bash -c machine_code; fi
if wanted bench; then stage bench "${BENCH_S:-400}" bash -c bench; fi
if wanted sanitize; then
  if command -v compute-sanitizer >/dev/null; then
    stage memcheck "${SANITIZE_S:-180}" bash -c 'sanitize memcheck'
    stage initcheck "${SANITIZE_S:-180}" bash -c 'sanitize initcheck'
    stage racecheck "${SANITIZE_S:-180}" bash -c 'sanitize racecheck'
  else
    echo 'sanitize: skipped, no compute-sanitizer' | tee -a "$out/summary.txt"
  fi
fi
if wanted peers; then
  rm -f "$out/cuda_peers.jsonl"
  stage peers-kernels "${PEERS_S:-240}" bash -c 'peer cuda_kernels'
  stage peers-steps "${PEERS_S:-240}" bash -c 'peer cuda_steps'
fi

printf '\n'
cat "$out/summary.txt"
echo "outputs: $out"
[ "$failed" -eq 0 ]
