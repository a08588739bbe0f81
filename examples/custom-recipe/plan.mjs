// The numbers of the example, by stage: about three minutes of processor time, and seconds with --smoke.
const optimizer = { beta2: 0.98, weightDecay: 0.01 };
const maxNewTokens = 32;

/** A Qwen2.5-VL of 0.7 million weights. */
export const shape = {
  ...{ hiddenSize: 128, intermediateSize: 256, numLayers: 3, numHeads: 4, numKvHeads: 4 },
  ...{ ropeTheta: 100, mropeSection: [4, 6, 6], initializerRange: 0.05 },
  ...{ visionHiddenSize: 64, visionIntermediateSize: 128, visionDepth: 2, visionNumHeads: 2 },
};

export const plan = {
  evaluation: { maxNewTokens },
  sizes: { looks: 7200, rationales: 400, pool: 2000, validation: 200, test: 200 },
  looks: {
    ...{ steps: 150, batchSize: 48, learningRate: 2e-3, optimizer },
    schedule: { kind: 'cosine', warmupSteps: 30, minRatio: 0.1 },
  },
  // Few rationales; stops where accuracy has left chance, so that there is something left to learn.
  coldStart: {
    ...{ steps: 600, batchSize: 36, learningRate: 2e-3, optimizer },
    ...{ schedule: { kind: 'constant', warmupSteps: 20 }, evaluateEvery: 20, evaluateFrom: 160 },
    search: { enough: 0.75, saturated: 0.9, minFormatRate: 0.99 },
  },
  expert: {
    ...{ rounds: 2, samples: 4, chunkItems: 250, maxNewTokens },
    ...{ epochs: 1, batchSize: 36, learningRate: 1e-3, checkpointEvery: 25 },
  },
  grpo: {
    ...{ groupSize: 8, promptsPerStep: 12, steps: 16, learningRate: 2e-4, beta: 0.02 },
    ...{ maxCompletionLength: maxNewTokens, optimizer: { beta2: 0.98 }, checkpointEvery: 8 },
    schedule: { kind: 'linear', warmupSteps: 2 },
  },
};

/** The same stages, too short to learn anything: it checks that everything runs. */
export const smokePlan = {
  ...plan,
  sizes: { looks: 48, rationales: 48, pool: 12, validation: 8, test: 8 },
  looks: { ...plan.looks, steps: 6, batchSize: 8 },
  coldStart: { ...plan.coldStart, steps: 6, batchSize: 8, search: undefined, evaluateEvery: undefined },
  expert: { ...plan.expert, rounds: 2, chunkItems: 3, batchSize: 4, checkpointEvery: 4 },
  grpo: { ...plan.grpo, groupSize: 4, promptsPerStep: 3, steps: 4, gate: { enabled: false }, checkpointEvery: 2 },
};
