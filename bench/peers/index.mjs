// The same work by PyTorch, transformers, TRL and llama.cpp. A peer that is missing or fails costs its own rows alone.
import { runCases } from '../cases.mjs';
import { engineCases } from './engine.bench.mjs';
import { findLlama, findPython } from './find.mjs';
import { kernelCases } from './kernels.bench.mjs';

/** Skips with the reason where there is no such Python. Returns how many cases failed. */
export async function benchPeers(options) {
  const { python, versions, reason } = findPython();
  if (python === undefined) {
    console.log(`bench:peers skipped: ${reason}`);
    return 0;
  }
  const llama = findLlama(python);
  console.log(`peers: ${[versions, llama.versions].filter(Boolean).join(' ')}`);
  if (llama.folder === undefined) console.log(`llama.cpp skipped: ${llama.reason}`);
  const all = { ...options, python, versions, llama };
  return runCases([...kernelCases(all), ...engineCases(all)]);
}
