// What the check of the plugin's machine code sees and what it lets pass.
import { expect, it } from 'vitest';
import { complaintsOf, idleRules, kernelsOf } from '../../scripts/check-sass.mjs';

const gemm = '_ZN5gavel4cuda11gemm_kernelItNS0_9TileShapeE';
const listing = (name: string, ...instructions: string[]): string =>
  `\t\tFunction : ${name}\n\t.headerflags\n${instructions.map((one) => `        /*0000*/  ${one} ;`).join('\n')}\n`;

it('passes a kernel with what it needs and names what is missing', () => {
  const good = listing(
    gemm,
    'HMMA.16816.F32.BF16 R4, R8, R12, R4',
    'LDSM.16.M88.4 R4, [R8]',
    'LDGSTS.E.BYPASS.128 [R5], [R2.64]',
  );
  expect(complaintsOf(kernelsOf(good))).toEqual([]);
  expect(complaintsOf(kernelsOf(listing(gemm, 'FFMA R1, R2, R3, R1')))).toEqual([
    `${gemm}: no tensor core products`,
    `${gemm}: no fragments loaded by matrix`,
    `${gemm}: no asynchronous copies of 16 bytes`,
  ]);
});

it('sees local memory in any kernel', () => {
  const spills = listing('merge_kernel', 'STL [R1], R4', 'LDL R4, [R1]');
  expect(complaintsOf(kernelsOf(spills))).toEqual(['merge_kernel: local memory']);
  expect(complaintsOf(kernelsOf(listing('merge_kernel', 'LDG.E R4, [R2.64]')))).toEqual([]);
});

it('asks what a kernel that no rule names is to be', () => {
  expect(complaintsOf(kernelsOf(listing('new_kernel', 'LDG.E R4, [R2.64]')))).toEqual([
    'new_kernel: no rule says what it is to be',
  ]);
});

it('asks of AdamW what its states allow, and tells forms for whole rows from those for odd ones', () => {
  const of = (name: string, ...widths: string[]): string[] =>
    complaintsOf(kernelsOf(listing(name, ...widths.map((width) => `${width} R4, [R2.64]`))));
  expect(of('adamw_kernelIffLb0EE', 'LDG.E.128', 'STG.E.128')).toEqual([]);
  expect(of('adamw_kernelIttLb1EE', 'LDG.E.128', 'STG.E.64')).toEqual(['adamw_kernelIttLb1EE: no stores of 16 bytes']);
  expect(of('adamw_kernelIhtLb0EE', 'LDG.E.128', 'STG.E')).toEqual(['adamw_kernelIhtLb0EE: no stores of 8 bytes']);
  expect(of('adamw_kernelIhtLb0EE', 'LDG.E.128', 'STG.E.64')).toEqual([]);
  expect(of('partial_sums_kernelILi8EE', 'LDG.E.U16', 'STG.E.128')).toEqual([
    'partial_sums_kernelILi8EE: no loads of 16 bytes',
  ]);
  expect(of('partial_sums_kernelILi1EE', 'LDG.E.U16', 'STG.E')).toEqual([]);
});

it('names rules that watch over no kernel', () => {
  const some = kernelsOf(listing('adamw_kernelIffLb0EE'));
  expect(idleRules(some).filter((one) => one.includes('adamw'))).toEqual([
    'no kernel is adamw_kernelI[th]tLb0E, meant to have stores of 8 bytes',
  ]);
});
