/** The numbers of the quickstart, by stage. The type and the driver are in quickstart-run.ts. */
import type { QuickstartPlan } from './quickstart-run.js';
import type { JudgeModelShape } from './vocabulary.js';

const shape: JudgeModelShape = {
  hiddenSize: 128,
  intermediateSize: 256,
  numLayers: 3,
  numHeads: 4,
  numKvHeads: 4,
  ropeTheta: 100,
  mropeSection: [4, 6, 6],
  visionHiddenSize: 64,
  visionIntermediateSize: 128,
  visionDepth: 2,
  visionNumHeads: 2,
  initializerRange: 0.05,
};

const optimizer = { beta2: 0.98, weightDecay: 0.01 };
const longestTrace = 32;

/** What `gavel quickstart` does: at most ten minutes on two cores. */
export const quickstartPlan: QuickstartPlan = {
  shape,
  dtype: 'fp32',
  budgetSeconds: 540,
  test: { seen: 500, unseen: 500 },
  validationItems: 300,
  evaluation: { maxNewTokens: longestTrace },
  perception: {
    items: 7200,
    testItems: 200,
    options: {
      steps: 150,
      batchSize: 48,
      learningRate: 2e-3,
      schedule: { kind: 'cosine', warmupSteps: 30, minRatio: 0.1 },
      optimizer,
      budgetSeconds: 75,
    },
  },
  coldStart: {
    // Few rationales and many passes: what is left to learn is then what the larger pool of the next stage can teach.
    items: 400,
    directEvery: 8,
    options: {
      steps: 600,
      batchSize: 36,
      learningRate: 2e-3,
      schedule: { kind: 'constant', warmupSteps: 20 },
      optimizer,
      evaluateEvery: 20,
      evaluateFrom: 160,
      search: { enough: 0.78, saturated: 0.9, minFormatRate: 0.99, finestEvery: 5 },
      budgetSeconds: 240,
    },
  },
  rejection: {
    items: 3000,
    directEvery: 8,
    options: {
      samples: 4,
      maxNewTokens: longestTrace,
      samplingBudgetSeconds: 75,
      sft: { epochs: 2, batchSize: 36, learningRate: 1e-3, optimizer },
      budgetSeconds: 150,
    },
  },
  grpo: {
    options: {
      groupSize: 8,
      promptsPerStep: 24,
      steps: 70,
      learningRate: 2e-4,
      schedule: { kind: 'linear', warmupSteps: 5 },
      optimizer: { beta2: 0.98 },
      maxCompletionLength: longestTrace,
      beta: 0.04,
      budgetSeconds: 180,
    },
  },
};

/** The same stages in about a minute. Too short to learn to judge, so the gate is off: it checks that everything runs. */
export const smokePlan: QuickstartPlan = {
  ...quickstartPlan,
  budgetSeconds: 60,
  test: { seen: 24, unseen: 24 },
  validationItems: 24,
  perception: {
    items: 480,
    testItems: 24,
    options: { ...quickstartPlan.perception.options, steps: 20, batchSize: 24, budgetSeconds: 15 },
  },
  coldStart: {
    items: 480,
    directEvery: 8,
    options: {
      ...quickstartPlan.coldStart.options,
      steps: 20,
      batchSize: 24,
      evaluateEvery: 10,
      evaluateFrom: 0,
      budgetSeconds: 15,
    },
  },
  rejection: {
    items: 32,
    directEvery: 8,
    options: { ...quickstartPlan.rejection.options, samplingBudgetSeconds: 8, budgetSeconds: 15 },
  },
  grpo: {
    options: {
      ...quickstartPlan.grpo.options,
      promptsPerStep: 8,
      steps: 4,
      gate: { enabled: false },
      budgetSeconds: 15,
    },
  },
};
