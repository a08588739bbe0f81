// Looks into the machine code of the CUDA plugin: kernels that multiply matrices in bf16 use tensor cores, kernels that
// stream rows load and store 16 bytes at a time, and none keeps registers in local memory.
// Usage: node scripts/check-sass.mjs [gavel-cuda.so]. Ends well, and says so, where there is no cuobjdump.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './sources.mjs';
import { findProgram } from './toolchain.mjs';

const tensorCores = { wants: /HMMA\.16816\.F32\.BF16/, what: 'tensor core products' };
const fragments = { wants: /LDSM/, what: 'fragments loaded by matrix' };
const copies = { wants: /LDGSTS\S*\.128/, what: 'asynchronous copies of 16 bytes' };
const loads = { wants: /LDG\S*\.128/, what: 'loads of 16 bytes' };
const stores = { wants: /STG\S*\.128/, what: 'stores of 16 bytes' };
const pairedLoads = { wants: /LDG\S*\.64/, what: 'loads of 8 bytes' };
const pairedStores = { wants: /STG\S*\.64/, what: 'stores of 8 bytes' };
const products = { wants: /FFMA[\s\S]*LDS\S*\.128|LDS\S*\.128[\s\S]*FFMA/, what: 'fused products of 16 shared bytes' };

/**
 * What the mangled name of a kernel must lead to: `t` is bf16's storage type, unsigned short; `f` is float, `h` a code
 * of eight bits; `Lb1E` true; `Li8E` eight elements a thread.
 */
const rules = [
  ...[tensorCores, fragments, copies].map((rule) => ({ kernel: /(gemm|gemm_part|tiles|dlogits)_kernelIt/, ...rule })),
  { kernel: /(gemm|gemm_part|tiles|dlogits)_kernelIf/, ...products },
  // Epilogues. A warp of the lowest tile is 16 columns wide, and four lanes share a row.
  { kernel: /gemm_kernelIfNS.*Store(Out|GradX|Hidden)/, ...stores },
  { kernel: /gemm_kernelItNS0_9TileShapeILi(?!16E).*Store(Out|GradX|Hidden)/, ...stores },
  { kernel: /gemm_kernelItNS0_9TileShapeILi16E.*StoreOut/, ...pairedStores },
  ...[pairedLoads, pairedStores].map((rule) => ({ kernel: /gemm_kernelIt.*AddToPanels/, ...rule })),
  { kernel: /dlogits_kernel/, ...stores },
  // Attention's, by head size: of bf16, and of fp32, whose key and value tiles are copied likewise.
  ...[tensorCores, fragments].map((rule) => ({
    kernel: /(forward|forward_part|query|key)_kernelItLi/,
    only: /attention/,
    ...rule,
  })),
  { kernel: /(forward|forward_part|query|key)_kernelI[tf]Li/, only: /attention/, ...copies },
  { kernel: /(add|merge)_parts_kernel/, ...loads },
  ...[loads, stores].map((rule) => ({ kernel: /(unpack|add_rows)_kernel/, ...rule })),
  { kernel: /(copy|open)_blocks_kernel/, only: /attention/, ...stores },
  // Rows of norms, sums of columns, gathered and added rows, and everything elementwise.
  ...[loads, stores].flatMap((rule) =>
    [
      /(forward|backward)_kernelI[tf][tf]Lb1E/,
      /partial_sums_kernelILi[48]E/,
      /backward_kernelI[tf][tf]Li[48]E/,
      /table_kernelI[tf]Li[48]E/,
      /collect_kernelI[tf]Li[48]E/,
      /elements_kernelILi[48]E/,
    ].map((kernel) => ({ kernel, ...rule })),
  ),
  { kernel: /chunks_kernel/, ...loads },
  // A warp takes 256 elements: gradients, masters and fp32 states 16 bytes a lane, bf16 8, codes 4.
  { kernel: /adamw_kernel/, ...loads },
  { kernel: /adamw_kernelI(f|.f|..Lb1E)/, ...stores },
  { kernel: /adamw_kernelI[th]tLb0E/, ...pairedStores },
];

// Row by row or by index lists, an element a thread, or for rows that are no whole pieces of 16 bytes: nothing more is
// meant of them. A kernel of no rule and not here is new, and somebody must say what it is to be.
const plain =
  /(add_sums|collect|means|merge|sample|table|total|write_rows)_kernel|(elements|partial_sums)_kernelILi1E|(forward|backward)_kernelI[tf]([tf]L(b0|i1)E|[tf]?EE?v|[tf]E)/;

// The sine of a large double keeps digits of 2 / pi there.
const mayUseLocalMemory = /rope_table/;

/**
 * Kernels of a disassembly with their instructions.
 * @param {string} text
 */
export function kernelsOf(text) {
  return text
    .split(/^\s*Function : /m)
    .slice(1)
    .map((part) => ({ name: part.slice(0, part.indexOf('\n')).trim(), code: part }));
}

/**
 * What is wrong with the kernels of one architecture.
 * @param {readonly { name: string, code: string }[]} kernels
 */
export function complaintsOf(kernels) {
  const complaints = [];
  for (const { name, code } of kernels) {
    if (/\b(LDL|STL)\b/.test(code) && !mayUseLocalMemory.test(name)) complaints.push(`${name}: local memory`);
    let known = plain.test(name);
    for (const { kernel, wants, only, what } of rules) {
      if (!kernel.test(name) || (only !== undefined && !only.test(name))) continue;
      known = true;
      if (!wants.test(code)) complaints.push(`${name}: no ${what}`);
    }
    if (!known) complaints.push(`${name}: no rule says what it is to be`);
  }
  return complaints;
}

/**
 * Rules that name no kernel of a whole plugin: they would watch over nothing.
 * @param {readonly { name: string }[]} kernels
 */
export function idleRules(kernels) {
  return rules
    .filter(({ kernel, only }) => !kernels.some(({ name }) => kernel.test(name) && (only?.test(name) ?? true)))
    .map(({ kernel, what }) => `no kernel is ${kernel.source}, meant to have ${what}`);
}

function main(file) {
  const cudaHome = process.env.CUDA_HOME ?? process.env.CUDA_PATH ?? '/usr/local/cuda';
  const cuobjdump = findProgram(undefined, 'cuobjdump', join(cudaHome, 'bin/cuobjdump'));
  if (!cuobjdump || !existsSync(file)) {
    const why =
      'no cuobjdump: it comes with the CUDA toolkit, and with `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`';
    console.log(`skipped: ${cuobjdump ? `${file} is not there` : why}`);
    return;
  }
  let checked = 0;
  for (const architecture of ['sm_80', 'sm_90a']) {
    const { stdout } = spawnSync(cuobjdump, ['--dump-sass', '--gpu-architecture', architecture, file], {
      encoding: 'utf8',
      maxBuffer: 1 << 30,
    });
    const kernels = kernelsOf(stdout);
    if (kernels.length === 0) continue; // not built for it
    const complaints = [...complaintsOf(kernels), ...idleRules(kernels)];
    for (const complaint of complaints) console.error(`${architecture} ${complaint}`);
    console.log(`${architecture}: ${kernels.length} kernels, ${complaints.length} complaints`);
    checked += kernels.length;
    if (complaints.length > 0) process.exitCode = 1;
  }
  if (checked === 0) {
    console.error(`${file} holds no machine code for sm_80 or sm_90a`);
    process.exitCode = 1;
  }
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  main(process.argv[2] ?? join(projectRoot, 'build-cmake/Release/gavel-cuda.so'));
}
