/** How much one forward pass takes. */
import type { NativeGroup } from '../binding/contract.js';

/** Tokens of a pack, each prompt once. */
export const packedTokens = (groups: readonly NativeGroup[]): number =>
  groups.reduce(
    (total, { promptTokens, completions }) =>
      completions.reduce((sum, { tokens }) => sum + tokens.length, total + promptTokens.length),
    0,
  );
