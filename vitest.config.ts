import { defineConfig } from 'vitest/config';

// One project a tier. A native addon is loaded per process, so files run in forks, never in threads; the machine has
// few cores and the addon its own pool, so only the tiers that load no binary run files side by side.
const tier = (name: string, timeoutMs: number, parallel: boolean): object => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    pool: 'forks',
    fileParallelism: parallel,
    testTimeout: timeoutMs,
    hookTimeout: timeoutMs,
  },
});

export default defineConfig({
  test: {
    passWithNoTests: true,
    projects: [
      tier('unit', 20_000, true),
      tier('addon', 60_000, false),
      tier('numerics', 120_000, false),
      tier('process', 180_000, false),
      tier('package', 900_000, false),
      tier('cuda', 300_000, false),
    ],
  },
});
