// A recipe of one's own: expert iteration. Each round draws k samples an item, keeps those that a verifier calls right, and
// fits the model to them. RAFT (Dong et al. 2023) with a verdict for a reward; ReST-EM (Singh et al. 2023) without its reset.
import { markSamples, StepReporter, stepLoop, supervisedGroup } from 'gavel-rl';

/** A recipe is a kind, a config for the run's files, and `run`. What it returns is its result: plain data. */
export function expertIteration({ data, judge, options }) {
  return {
    kind: 'expert-iteration',
    config: { data: data.name, ...options },
    run: async (context) => {
      const rounds = [];
      for (let round = 1; round <= options.rounds; round++) {
        // Stages within a stage: each has its own progress and result, so a killed run goes on in the middle of a round.
        const name = (part) => `${context.stage}/${part}-${round}`;
        const drawn = await context.runStage(name('draw'), draw(data, judge, options));
        const fitted = await context.runStage(name('fit'), fit(data, drawn, options));
        rounds.push({ share: drawn.accuracy, solved: drawn.passAtK, ...fitted });
      }
      return { rounds };
    },
  };
}

/** Samples every item with fixed weights and marks what was drawn. The run's pool keeps it: nothing is drawn twice. */
function draw(data, judge, { samples, chunkItems, seed, maxNewTokens }) {
  return {
    kind: 'draw',
    config: { samples },
    run: async (context) => {
      const { weights } = context.progress() ?? { weights: context.weightsName };
      const kept = [];
      const marked = await markSamples(
        context,
        {
          ...{ data, judge, samples, seed, maxNewTokens, weights, pool: context.run.samples },
          ...{ temperature: 1, chunkItems, progress: () => ({ weights }) },
        },
        (item) =>
          void kept.push(...item.samples.flatMap(({ correct, sample }) => (correct ? [[item.index, sample]] : []))),
      );
      context.note(`Kept ${kept.length} of ${marked.items * samples} samples.`, { kept: kept.length });
      return { weights, kept, ...marked };
    },
  };
}

/** Fits the model to the kept samples on the bare verbs: forward and backward, then an optimizer step. */
function fit(data, { weights, kept }, { epochs, batchSize, learningRate, checkpointEvery }) {
  return {
    kind: 'fit',
    config: { epochs, batchSize, learningRate },
    run: async (context) => {
      const { policy, signal } = context;
      const rows = await keptRows(context, data, weights, kept);
      if (rows.length === 0) return { kept: 0, steps: 0, loss: null };
      const totalSteps = Math.ceil((epochs * rows.length) / batchSize);
      const progress = context.progress() ?? { step: 0, totalSteps, loss: null };
      if (progress.step === 0) await policy.model.resetOptimizer();
      const reporter = new StepReporter(context);
      await stepLoop(context, progress, undefined, async (clock) => {
        const startedMs = performance.now();
        const batch = Array.from({ length: batchSize }, (_, i) => rows[(progress.step * batchSize + i) % rows.length]);
        const groups = (await policy.encode(batch, signal)).map(supervisedGroup);
        const { loss, metrics, packedTokens } = await policy.model.forwardBackward(groups, [{ kind: 'nll' }], {
          signal,
        });
        const update = await policy.model.optimizerStep({ learningRate, beta2: 0.98, maxGradNorm: 1 });
        progress.step++;
        progress.loss = loss;
        const facts = { step: progress.step, clock, startedMs, loss, learningRate, update, metrics };
        await reporter.report({ ...facts, reward: null, tokens: packedTokens });
        if (progress.step % checkpointEvery === 0) await context.checkpoint(progress.step, progress);
        return 'continue';
      });
      return { kept: rows.length, steps: progress.step, loss: progress.loss };
    },
  };
}

/** The kept samples as supervised rows; equal samples of an item are one row. */
async function keptRows(context, data, weights, kept) {
  const rows = new Map();
  for (const [index, sample] of kept) {
    const row = await data.row(index);
    const entry = context.run.samples.entries(weights, row.id).find((other) => other.sample === sample);
    const { text } = await context.run.samples.read(entry);
    rows.set(`${row.id} ${text}`, { ...row, completion: text });
  }
  return [...rows.values()];
}
