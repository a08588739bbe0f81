// What users of the package may rely on, frozen: names, options, events and error codes. A change here is a change of the
// public surface and belongs in the lists below, written by hand.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');
const words = (text: string): string[] => text.trim().split(/\s+/).sort();

/** Native modules this process has mapped. */
const mappedAddons = (): string[] => [
  ...new Set(readFileSync('/proc/self/maps', 'utf8').match(/\/\S+\.node$/gm) ?? []),
];
const beforeImport = mappedAddons();
const gavel = await import('../../src/index.js');
const kernels = await import('../../src/kernels.js');
const afterImport = mappedAddons();

const values = `
  DataThreads Engine GavelError JsonlDataset Model Policy Processor RunFolder SamplePool SampleRun Tokenizer accuracyReward
  balanceOrder computeAdvantages createEngine datasetFromRows datasetPart defaultJudge deviceInfo errorCodes estimateMemory evaluate
  evaluateRewards fileEvaluationSet formatReward generatedDataset grpo hasLooseFormat hasStrictFormat importGguf jsonSchemaOf
  lenientVerifier parseCompletion pipeline rejection resolveCheckpoint sft strictVerifier swapCandidates train trainEventTypes verbSchemas
  verifierByName verifierNames
`;

const types = `
  AdvantageOptions Advantages BadRow ChatMessage Checkpoint CheckpointManifest CheckpointSaved Completion
  CompletionInput ContentPart CreateModelOptions DataThreadsOptions Dataset DecodeTextOptions DrawOptions
  DrawnCompletion EncodeOptions EncodedRow EngineOptions ErrorCode ErrorFields EstimateMemoryOptions EvaluateOptions EvaluationEnd
  EvaluationItem EvaluationResult EvaluationSet Evaluator FileEvaluationOptions GeneratorOptions Group GrpoOptions
  GrpoParts GrpoResult ImageInput ImageSource IncrementalDecoder JsonlOptions Judge LoadModelOptions Logprobs
  LogprobsOptions MarkedSample Memory MemoryEstimate ModelDtype NamedReward NoteTaken Objective OptimizerResult OptimizerStepOptions
  ParsedCompletion PipelineStage ProcessorOptions Recipe RecipeContext RejectionOptions RejectionParts RejectionResult ResolveOptions
  RewardFunction RewardInput RewardTable Row RunConfig RunEnd RunOptions RunStage SampleOptions SampleRequest
  SampleStats SamplingProgress SaveOptions SftOptions SftParts SftResult StageEnd StageResults StageStart StepEnd
  StepOptions StepResult SwapOptions TensorInfo TensorKind TrainEvent TrainJob TrainOptions TrainResult Verdict
  Verifier VerifierName VideoOptions VideoSource
`;

const codes = `
  invalid_argument invalid_config bad_data prompt_too_long image_unreadable image_count_mismatch corrupt_checkpoint
  tokenizer_mismatch io disk_full permission_denied out_of_memory non_finite unsupported device_unavailable binary_missing
  gate_refused aborted disposed internal
`;

const events = `
  stage-start step-end sampling-progress evaluation-end checkpoint-saved note-taken stage-end run-end
`;

const verbOptions: Record<string, string> = {
  createEngine: `device threads`,
  loadModel: `
    adapter dtype freeze hub hub.cacheFolder hub.endpoint hub.offline hub.token lora lora.alpha lora.dropout lora.exclude lora.rank lora.rankStabilized lora.seed lora.targets
    lora.trainableTokens lora.vision optimizer optimizer.seed optimizer.states optimizer.weights
  `,
  createModel: `
    companions dtype freeze seed std lora lora.alpha lora.dropout lora.exclude lora.rank lora.rankStabilized lora.seed lora.targets
    lora.trainableTokens lora.vision optimizer optimizer.seed optimizer.states optimizer.weights
  `,
  sample: `adapter bannedTokens count firstSample maxNewTokens maxRows minP seed stopTokens temperature topK topP`,
  logprobs: `activationCheckpointing adapter entropy maxTokensPerMicroBatch stepCompletions stepTokens`,
  forwardBackward: `activationCheckpointing maxTokensPerMicroBatch stepCompletions stepTokens`,
  objectives: `
    [].beta [].delta [].epsilonHigh [].epsilonLow [].importanceSampling [].kind [].klBiasCorrection
    [].klClamp [].lossType [].maxCompletionLength [].normalization [].weight
  `,
  optimizerStep: `beta1 beta2 decayParameters eps learningRate maxGradNorm weightDecay`,
  save: `optimizer`,
};

/** Options of a stage are those of its recipe. */
const configKeys: Record<string, string> = {
  run: `
    budgetSeconds engine engine.device engine.threads exportFinal keepCheckpoints model model.dtype
    model.adapter model.freeze model.lora model.lora.alpha model.lora.dropout model.lora.exclude model.lora.rank model.lora.rankStabilized model.lora.seed model.lora.targets
    model.lora.trainableTokens model.lora.vision model.optimizer model.optimizer.seed model.optimizer.states model.optimizer.weights
    model.ffmpeg model.initializeSeed model.maxPixels model.maxPromptTokens model.minPixels model.path model.trainable
    model.video model.video.fps model.video.maxFrames model.video.maxPixels model.video.minFrames
    model.video.minPixels model.video.numFrames
    run stages stages[].data stages[].data.bothOrders stages[].data.chunkItems stages[].data.imageFolder
    stages[].data.maxNewTokens stages[].data.onBadRow stages[].data.path stages[].data.samples
    stages[].data.seed stages[].data.temperature stages[].hardOf stages[].name stages[].options
    stages[].recipe stages[].rewards stages[].rewards.accuracy stages[].rewards.format stages[].validation
    stages[].validation.bothOrders stages[].validation.chunkItems stages[].validation.imageFolder
    stages[].validation.maxNewTokens stages[].validation.onBadRow stages[].validation.path
    stages[].validation.samples stages[].validation.seed stages[].validation.temperature stages[].verifier
  `,
  sft: `
    batchSize budgetSeconds checkpointEvery epochs evaluateEvery evaluateFrom learningRate microBatch
    microBatch.activationCheckpointing microBatch.maxTokens normalization optimizer optimizer.beta1
    optimizer.beta2 optimizer.decayParameters optimizer.eps optimizer.maxGradNorm optimizer.weightDecay
    schedule schedule.decaySteps schedule.kind schedule.minRatio schedule.power schedule.warmupRatio
    schedule.warmupSteps search search.chance search.enough search.finestEvery search.minFormatRate search.saturated seed steps
  `,
  rejection: `
    budgetSeconds chunkItems maxNewTokens minP samples samplingBudgetSeconds seed sft sft.batchSize
    sft.budgetSeconds sft.checkpointEvery sft.epochs sft.evaluateEvery sft.evaluateFrom sft.learningRate
    sft.microBatch sft.microBatch.activationCheckpointing sft.microBatch.maxTokens sft.normalization
    sft.optimizer sft.optimizer.beta1 sft.optimizer.beta2 sft.optimizer.decayParameters sft.optimizer.eps
    sft.optimizer.maxGradNorm sft.optimizer.weightDecay sft.schedule sft.schedule.decaySteps
    sft.schedule.kind sft.schedule.minRatio sft.schedule.power sft.schedule.warmupRatio
    sft.schedule.warmupSteps sft.search sft.search.chance sft.search.enough sft.search.finestEvery sft.search.minFormatRate
    sft.search.saturated sft.seed sft.steps temperature topK topP
  `,
  grpo: `
    beta budgetSeconds checkpointEvery delta dropZeroVarianceGroups epochs epsilon epsilonHigh evaluateEvery
    gate gate.chance gate.enabled groupSize importanceSampling klBiasCorrection klClamp learningRate
    lossType maxCompletionLength microBatch microBatch.activationCheckpointing microBatch.maxTokens minP
    optimizer optimizer.beta1 optimizer.beta2 optimizer.decayParameters optimizer.eps optimizer.maxGradNorm
    optimizer.weightDecay promptsPerStep scaleRewards schedule schedule.decaySteps schedule.kind
    schedule.minRatio schedule.power schedule.warmupRatio schedule.warmupSteps seed steps temperature topK
    topP updatesPerRollout
  `,
  evaluate: `chunkItems maxNewTokens samples seed temperature`,
};

interface JsonSchema {
  properties?: Record<string, JsonSchema & { const?: unknown }>;
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  items?: JsonSchema;
  description?: string;
}

/** Dotted names of every key a schema knows; elements of a list are `[]`. */
function keysOf(node: JsonSchema, name = '', found = new Map<string, JsonSchema>()): Map<string, JsonSchema> {
  for (const [key, inner] of Object.entries(node.properties ?? {})) {
    const full = name === '' ? key : `${name}.${key}`;
    found.set(full, inner);
    keysOf(inner, full, found);
  }
  for (const choice of [...(node.anyOf ?? []), ...(node.oneOf ?? [])]) keysOf(choice, name, found);
  if (node.items !== undefined) keysOf(node.items, `${name}[]`, found);
  return found;
}

/** Names of a module's exports that are types alone. */
function exportedTypes(path: string): string[] {
  const source = ts.createSourceFile(path, readFileSync(join(root, path), 'utf8'), ts.ScriptTarget.Latest);
  return source.statements.flatMap((statement) => {
    if (!ts.isExportDeclaration(statement) || statement.exportClause === undefined) return [];
    if (!ts.isNamedExports(statement.exportClause)) return [];
    const all = statement.isTypeOnly;
    return statement.exportClause.elements.filter((one) => all || one.isTypeOnly).map((one) => one.name.text);
  });
}

describe('the package', () => {
  it('exports these names and no others', () => {
    expect(Object.keys(gavel).sort()).toEqual(words(values));
    expect(exportedTypes('src/index.ts').sort()).toEqual(words(types));
    expect(Object.keys(kernels).sort()).toEqual(words('attention grpoLoss linear logprobs rmsNorm sampleTokens'));
    expect(readFileSync(join(root, 'src/index.ts'), 'utf8')).not.toMatch(/export \*/);
  });

  it('has two doors', () => {
    const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { exports: object };
    expect(Object.keys(exports)).toEqual(['.', './kernels', './package.json']);
  });

  it('loads no binary when it is imported', async () => {
    expect(afterImport).toEqual(beforeImport);
    // A module that does load one is seen.
    await import('sharp');
    expect(mappedAddons().length).toBeGreaterThan(beforeImport.length);
  });

  it('throws these codes and no others', () => {
    expect([...gavel.errorCodes].sort()).toEqual(words(codes));
  });

  it('tells these events and no others', () => {
    expect([...gavel.trainEventTypes].sort()).toEqual(words(events));
    const emitted = readdirSync(join(root, 'src/recipes')).flatMap((file) => [
      ...readFileSync(join(root, 'src/recipes', file), 'utf8').matchAll(/\btype: '([a-z]+-[a-z]+)'/g),
    ]);
    expect([...new Set(emitted.map(([, name]) => name!))].sort()).toEqual(words(events));
  });
});

describe('options', () => {
  it('of every verb', () => {
    const schemas = gavel.verbSchemas() as Record<string, JsonSchema>;
    expect(Object.keys(schemas)).toEqual(Object.keys(verbOptions));
    for (const [verb, schema] of Object.entries(schemas)) {
      expect([...keysOf(schema).keys()].sort(), verb).toEqual(words(verbOptions[verb]!));
    }
  });

  it('of every recipe and of run.yaml', () => {
    for (const [name, keys] of Object.entries(configKeys)) {
      const schema = gavel.jsonSchemaOf(name as 'run') as JsonSchema;
      const found = [...keysOf(schema).keys()].filter((key) => !key.startsWith('stages[].options.'));
      expect(found.sort(), name).toEqual(words(keys));
    }
  });

  it('of a stage are those of its recipe', () => {
    const { properties } = gavel.jsonSchemaOf('run') as JsonSchema;
    const choices = properties!['stages']!.items!.oneOf!;
    const recipes = choices.map((choice) => choice.properties!['recipe']!.const as string);
    expect(recipes).toEqual(['sft', 'rejection', 'grpo', 'evaluate']);
    for (const [i, recipe] of recipes.entries()) {
      const options = choices[i]!.properties!['options'];
      if (options !== undefined) expect([...keysOf(options).keys()].sort(), recipe).toEqual(words(configKeys[recipe]!));
    }
  });

  it('are all described', () => {
    const all = [
      ...Object.values(gavel.verbSchemas() as Record<string, JsonSchema>),
      ...Object.keys(configKeys).map((name) => gavel.jsonSchemaOf(name as 'run') as JsonSchema),
    ];
    // `kind` and `recipe` choose among alternatives, whose own descriptions say what they are.
    const silent = all
      .flatMap((schema) => [...keysOf(schema)])
      .filter(([name, { description }]) => !/(^|\.|\])kind$/.test(name) && !description)
      .map(([name]) => name);
    expect(silent).toEqual([]);
  });
});
