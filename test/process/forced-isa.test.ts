// GAVEL_ISA chooses the instructions of a process; a name that cannot be had is an error, never another path.
import { describe, expect, it } from 'vitest';
import { runScript } from './child.js';

const forced = async (isa: string): Promise<string> => {
  const body = `
    await createEngine({ threads: 1 }).then(
      (engine) => (console.log(engine.isa), engine.dispose()),
      (error) => console.log(error.code, error.message),
    );`;
  return (await runScript(body, { env: { GAVEL_ISA: isa } })).stdout.trim();
};

describe('GAVEL_ISA', () => {
  it('names the path', async () => {
    expect(await forced('generic')).toBe('generic');
    expect(await forced('')).toMatch(/^(amx|avx512-bf16|avx512|avx2|generic)$/);
  });

  it('is refused by name when nothing has it', async () => {
    expect(await forced('sse9')).toMatch(
      /^invalid_argument Expected an instruction set .* GAVEL_ISA but received "sse9"\. This machine has .*generic\.$/,
    );
  });
});
