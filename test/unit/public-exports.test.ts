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
  DataThreads Engine GavelError JsonlDataset JsonlPairs Model ParquetDataset ParquetPairs Policy Processor Reference RunFolder SamplePool
  SampleRun StepReporter Tokenizer accuracyReward agreementOf answerJudge balanceOrder batches benchmarkNames bootstrapInterval
  calibrationOf compareSelections comparisonPlots computeAdvantages createEngine dataFormats datasetFromRows datasetPart defaultJudge
  deviceInfo dpo dpoPairs effectiveRank errorCodes estimateMemory evaluate evaluateRewards evaluateScorerRecipe evaluateScores evaluateScoresWithIntervals
  evaluationTables exactDigitsVerifier exchangeCandidates extractAnswer fileEvaluationSet findRuns formatReward fuseScores
  generatedDataset generatedPairs grpo hasLooseFormat hasStrictFormat importGguf inspectData joint jsonSchemaOf judgingRow lenientVerifier
  loadBenchmark majorityVote markSamples markdownTables openData openPairs optionLetterVerifier overlongPenalty pairBatches
  pairedBootstrap pairsFromRows parseCompletion parseJudgement parseScore passAtK pipeline plainTables positionOf preferByScore
  preferenceProbability questionSet r3v r3vPrompts readRunHistory readRunReport rejection relaxedNumericVerifier reliabilityPlot
  resolveCheckpoint runPlots scorePairs scoreReward scoreRows scoreVerifier selectEvaluation sft stepLoop strictVerifier summarize
  supervisedGroup swapCandidates tabmwpVerifier train trainEventTypes unifiedRewardThink unifiedRewardThinkStages verbSchemas verdictText
  verifierByName verifierNames wilsonInterval writePlots writeSamplesParquet
`;

const types = `
  AdvantageOptions Advantages Agreement AnswerForm BadRow Batch BatchOptions Bootstrap BootstrapOptions BootstrapResult Calibration
  ChatMessage Checkpoint CheckpointManifest CheckpointSaved Choice Completion CompletionInput ContentPart CreateModelOptions Cursor
  DataConfig DataDescription DataFormat DataThreadsOptions Dataset DecodeTextOptions DpoOptions DpoParts DpoResult DrawOptions
  DrawnCompletion EncodeOptions EncodedRow EngineOptions ErrorCode ErrorFields EstimateMemoryOptions EvaluateOptions EvaluationEnd
  EvaluationItem EvaluationResult EvaluationSet Evaluator FileEvaluationOptions GeneratorOptions Group GrpoOptions GrpoParts GrpoResult
  HeadFusion ImageInput ImageSource IncrementalDecoder InspectDataOptions Interval JointOptions JointParts JointResult JsonlOptions Judge
  Judgement JudgingKind JudgingRowOptions JudgingTask LoadModelOptions Locality Logprobs LogprobsOptions MarkOptions MarkResult MarkedItem
  MarkedSample Memory MemoryEstimate ModelDtype NamedReward NoteTaken Objective OpenedData OpenedPairs OptimizerResult
  OptimizerStepOptions PairBatch PairDataset PairGeneratorOptions PairRow ParsedCompletion PipelineStage PoolReadOptions Preference
  ProcessorOptions QuestionSetOptions R3vIteration R3vOptions R3vParts R3vPrompts R3vResult RankingObjective Recipe RecipeContext
  RefusedRows RejectionOptions RejectionParts RejectionResult ResolveOptions RewardFunction RewardHead RewardHeadOptions RewardInput
  RewardTable Row RowScore RunConfig RunEnd RunHistory RunOptions RunReport RunStage SampleEntry SampleOptions SampleQuery SampleRequest
  SampleStats SamplingProgress SaveOptions ScoreEvaluation ScoreOptions ScoreRowsOptions ScoredPair ScorerResult Scores ScoringEnd
  SelectEvaluationOptions SelectEvaluationParts SelectEvaluationResult SftOptions SftParts SftResult StageEnd StageResults StageStart
  StepEnd StepOptions StepPlan StepResult SwapOptions TensorInfo TensorKind TokenBytes TrainEvent TrainJob TrainOptions TrainResult
  UnifiedRewardThinkOptions UnifiedRewardThinkParts Verdict Verifier VerifierName VideoOptions VideoSource
`;

const codes = `
  invalid_argument invalid_config bad_data prompt_too_long image_unreadable image_count_mismatch corrupt_checkpoint
  tokenizer_mismatch io disk_full permission_denied out_of_memory non_finite unsupported device_unavailable binary_missing
  gate_refused aborted disposed internal
`;

const events = `
  stage-start step-end sampling-progress evaluation-end scoring-end selection-end checkpoint-saved note-taken stage-end run-end
`;

const verbOptions: Record<string, string> = {
  createEngine: `
    device threads isa pinThreads exactness
  `,
  loadModel: `
    adapter dtype freeze hub hub.cacheFolder hub.endpoint hub.offline hub.token lora lora.alpha lora.dropout lora.exclude lora.rank
    lora.rankStabilized lora.seed lora.targets lora.trainableTokens lora.vision optimizer optimizer.seed optimizer.states
    optimizer.weights promptCacheBytes rewardHead rewardHead.fusion rewardHead.heads rewardHead.hiddenSizes rewardHead.names
    rewardHead.seed rewardHead.token
  `,
  createModel: `
    companions dtype freeze lora lora.alpha lora.dropout lora.exclude lora.rank lora.rankStabilized lora.seed lora.targets
    lora.trainableTokens lora.vision optimizer optimizer.seed optimizer.states optimizer.weights promptCacheBytes rewardHead
    rewardHead.fusion rewardHead.heads rewardHead.hiddenSizes rewardHead.names rewardHead.seed rewardHead.token seed std
  `,
  sample: `
    adapter bannedTokens count firstSample maxNewTokens maxRows minP seed stopStrings stopTokens temperature topK topP
  `,
  logprobs: `
    activationCheckpointing adapter entropy maxTokensPerMicroBatch stepCompletions stepTokens
  `,
  score: `
    adapter maxTokensPerMicroBatch states
  `,
  forwardBackward: `
    activationCheckpointing maxTokensPerMicroBatch stepCompletions stepTokens
  `,
  objectives: `
    [].beta [].centring [].delta [].dualClip [].entropyCoef [].entropyThreshold [].epsilonHigh [].epsilonLow [].estimator [].form
    [].fusion [].headWeights [].importanceSampling [].kind [].klBiasCorrection [].klClamp [].klEstimator [].labelSmoothing
    [].logSigmaMax [].logSigmaMin [].loss [].lossType [].margin [].maxCompletionLength [].nodes [].normalization [].offPolicyThreshold
    [].pairs [].pairs.chosen [].pairs.labels [].pairs.margins [].pairs.rejected [].pairs.ties [].samples [].sapoTemperatureNegative
    [].sapoTemperaturePositive [].seed [].stepCount [].stepPairs [].targets [].tieRatio [].topEntropyQuantile [].vespoKNegative
    [].vespoKPositive [].vespoLambdaNegative [].vespoLambdaPositive [].weight
  `,
  optimizerStep: `
    beta1 beta2 decayParameters eps learningRate maxGradNorm weightDecay
  `,
  save: `
    optimizer
  `,
};

/** Options of a stage are those of its recipe. */
const configKeys: Record<string, string> = {
  run: `
    budgetSeconds engine engine.device engine.exactness engine.isa engine.pinThreads engine.threads exportFinal keepCheckpoints model model.adapter model.dtype model.ffmpeg
    model.freeze model.initializeSeed model.lora model.lora.alpha model.lora.dropout model.lora.exclude model.lora.rank
    model.lora.rankStabilized model.lora.seed model.lora.targets model.lora.trainableTokens model.lora.vision model.maxPixels
    model.maxPromptTokens model.minPixels model.optimizer model.optimizer.seed model.optimizer.states model.optimizer.weights model.path
    model.promptCacheBytes model.rewardHead model.rewardHead.fusion model.rewardHead.heads model.rewardHead.hiddenSizes model.rewardHead.names
    model.rewardHead.seed model.rewardHead.token model.trainable model.video model.video.fps model.video.maxFrames model.video.maxPixels
    model.video.minFrames model.video.minPixels model.video.numFrames run stages stages[].answer stages[].ask stages[].coldStart
    stages[].coldStart.checkMedia stages[].coldStart.format stages[].coldStart.imageFolder stages[].coldStart.instruction
    stages[].coldStart.onBadRow stages[].coldStart.path stages[].coldStart.sampling stages[].coldStart.seed stages[].coldStart.split
    stages[].coldStart.weight stages[].coldStart[].checkMedia stages[].coldStart[].format stages[].coldStart[].imageFolder
    stages[].coldStart[].instruction stages[].coldStart[].onBadRow stages[].coldStart[].path stages[].coldStart[].sampling
    stages[].coldStart[].seed stages[].coldStart[].split stages[].coldStart[].weight stages[].data stages[].data.bothOrders
    stages[].data.checkMedia stages[].data.chunkItems stages[].data.format stages[].data.imageFolder stages[].data.instruction
    stages[].data.maxNewTokens stages[].data.onBadRow stages[].data.path stages[].data.samples stages[].data.sampling stages[].data.seed
    stages[].data.split stages[].data.stopStrings stages[].data.temperature stages[].data.weight stages[].data[].checkMedia stages[].data[].format
    stages[].data[].imageFolder stages[].data[].instruction stages[].data[].onBadRow stages[].data[].path stages[].data[].sampling
    stages[].data[].seed stages[].data[].split stages[].data[].weight stages[].hardOf stages[].name stages[].pairsOf stages[].options stages[].pool
    stages[].pool.checkMedia stages[].pool.format stages[].pool.imageFolder stages[].pool.instruction stages[].pool.onBadRow
    stages[].pool.path stages[].pool.sampling stages[].pool.seed stages[].pool.split stages[].pool.weight stages[].pool[].checkMedia
    stages[].pool[].format stages[].pool[].imageFolder stages[].pool[].instruction stages[].pool[].onBadRow stages[].pool[].path
    stages[].pool[].sampling stages[].pool[].seed stages[].pool[].split stages[].pool[].weight stages[].recipe stages[].rewards
    stages[].rewards.accuracy stages[].rewards.format stages[].test stages[].test.bothOrders stages[].test.checkMedia
    stages[].test.chunkItems stages[].test.format stages[].test.imageFolder stages[].test.instruction stages[].test.maxNewTokens
    stages[].test.onBadRow stages[].test.path stages[].test.samples stages[].test.sampling stages[].test.seed stages[].test.split
    stages[].test.stopStrings stages[].test.temperature stages[].validation stages[].validation.bothOrders stages[].validation.checkMedia
    stages[].validation.chunkItems stages[].validation.format stages[].validation.imageFolder stages[].validation.instruction
    stages[].validation.maxNewTokens stages[].validation.onBadRow stages[].validation.path stages[].validation.samples
    stages[].validation.sampling stages[].validation.seed stages[].validation.split stages[].validation.stopStrings
    stages[].validation.temperature
    stages[].validation.weight stages[].validation[].checkMedia stages[].validation[].format stages[].validation[].imageFolder
    stages[].validation[].instruction stages[].validation[].onBadRow stages[].validation[].path stages[].validation[].sampling
    stages[].validation[].seed stages[].validation[].split stages[].validation[].weight stages[].verifier stages[].warmUp
    stages[].warmUp.checkMedia stages[].warmUp.format stages[].warmUp.imageFolder stages[].warmUp.instruction stages[].warmUp.onBadRow
    stages[].warmUp.path stages[].warmUp.sampling stages[].warmUp.seed stages[].warmUp.split stages[].warmUp.weight
    stages[].warmUp[].checkMedia stages[].warmUp[].format stages[].warmUp[].imageFolder stages[].warmUp[].instruction
    stages[].warmUp[].onBadRow stages[].warmUp[].path stages[].warmUp[].sampling stages[].warmUp[].seed stages[].warmUp[].split
    stages[].warmUp[].weight
  `,
  sft: `
    batchSize budgetSeconds checkpointEvery epochs evaluateEvery evaluateFrom learningRate microBatch microBatch.activationCheckpointing
    microBatch.maxTokens normalization optimizer optimizer.beta1 optimizer.beta2 optimizer.decayParameters optimizer.eps
    optimizer.maxGradNorm optimizer.weightDecay schedule schedule.decaySteps schedule.kind schedule.minRatio schedule.power
    schedule.warmupRatio schedule.warmupSteps search search.chance search.enough search.finestEvery search.minFormatRate
    search.saturated seed steps
  `,
  rejection: `
    budgetSeconds chunkItems maxNewTokens minP samples samplingBudgetSeconds seed sft sft.batchSize sft.budgetSeconds
    sft.checkpointEvery sft.epochs sft.evaluateEvery sft.evaluateFrom sft.learningRate sft.microBatch
    sft.microBatch.activationCheckpointing sft.microBatch.maxTokens sft.normalization sft.optimizer sft.optimizer.beta1
    sft.optimizer.beta2 sft.optimizer.decayParameters sft.optimizer.eps sft.optimizer.maxGradNorm sft.optimizer.weightDecay sft.schedule
    sft.schedule.decaySteps sft.schedule.kind sft.schedule.minRatio sft.schedule.power sft.schedule.warmupRatio sft.schedule.warmupSteps
    sft.search sft.search.chance sft.search.enough sft.search.finestEvery sft.search.minFormatRate sft.search.saturated sft.seed
    sft.steps stopStrings temperature topK topP
  `,
  grpo: `
    aggregation baseline beta budgetSeconds checkpointEvery delta dropZeroVarianceGroups dualClip dynamicSamplingRounds entropyCoef
    epochs epsilon epsilonHigh evaluateEvery gate gate.chance gate.enabled groupSize importanceSampling klBiasCorrection klClamp
    klEstimator klIn learningRate lossType maskTruncatedCompletions maxCompletionLength microBatch microBatch.activationCheckpointing
    microBatch.maxTokens minP offPolicyThreshold optimizer optimizer.beta1 optimizer.beta2 optimizer.decayParameters optimizer.eps
    optimizer.maxGradNorm optimizer.weightDecay overlongPenalty overlongPenalty.buffer overlongPenalty.weight promptsPerStep
    sapoTemperatureNegative sapoTemperaturePositive scaleRewards schedule schedule.decaySteps schedule.kind schedule.minRatio
    schedule.power schedule.warmupRatio schedule.warmupSteps seed steps stopStrings temperature topEntropyQuantile topK topP updateBatches
    updatesPerRollout vespoKNegative vespoKPositive vespoLambdaNegative vespoLambdaPositive
  `,
  'unified-reward-think': `
    budgetSeconds coldStart grpo rejection stages
  `,
  dpo: `
    batchSize beta budgetSeconds checkpointEvery epochs evaluateEvery labelSmoothing learningRate loss microBatch
    microBatch.activationCheckpointing microBatch.maxTokens optimizer optimizer.beta1 optimizer.beta2 optimizer.decayParameters
    optimizer.eps optimizer.maxGradNorm optimizer.weightDecay schedule schedule.decaySteps schedule.kind schedule.minRatio
    schedule.power schedule.warmupRatio schedule.warmupSteps seed steps ties
  `,
  joint: `
    alpha batchSize budgetSeconds checkpointEvery epochs evaluateEvery labels learningRate microBatch microBatch.activationCheckpointing
    microBatch.maxTokens optimizer optimizer.beta1 optimizer.beta2 optimizer.decayParameters optimizer.eps optimizer.maxGradNorm
    optimizer.weightDecay ranking ranking.centring ranking.estimator ranking.form ranking.logSigmaMax ranking.logSigmaMin ranking.loss
    ranking.margin ranking.nodes ranking.samples ranking.seed ranking.tieRatio schedule schedule.decaySteps schedule.kind
    schedule.minRatio schedule.power schedule.warmupRatio schedule.warmupSteps seed steps
  `,
  r3v: `
    budgetSeconds candidates chunkItems direct iterate iterations keep maxNewTokens minP patience refine samples samplingBudgetSeconds
    seed select selectTarget sft start stopStrings temperature topK topP warmUp weights weights.direct weights.refine weights.selectA
    weights.selectB weights.selfCot weights.warmUp
  `,
  'select-evaluation': `
    candidates chunkItems maxNewTokens minP refine seed select selectTokens sizes stopStrings temperature topK topP
  `,
  evaluate: `
    chunkItems maxNewTokens samples seed stopStrings temperature
  `,
};

/** Keys of a recipe without those of the recipes inside it, which have lists of their own. */
const innerRecipes: Record<string, readonly string[]> = {
  'unified-reward-think': ['coldStart.', 'rejection.', 'grpo.'],
  r3v: ['sft.', 'warmUp.'],
};
const ownKeys = (recipe: string, keys: readonly string[]): string[] =>
  keys.filter((key) => !innerRecipes[recipe]?.some((prefix) => key.startsWith(prefix))).sort();

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
    expect(Object.keys(kernels).sort()).toEqual(
      words('attention dpoLoss grpoLoss linear logprobs rankingLoss rmsNorm sampleTokens'),
    );
    expect(readFileSync(join(root, 'src/index.ts'), 'utf8')).not.toMatch(/export \*/);
  });

  it("exports the quickstart's task by a door of its own", async () => {
    const task = await import('../../src/emoji-judge/index.js');
    const names =
      'QuickstartData directPrompt judgePrompt loadEmojiBank lookPrompt markTrace parseTrace writeJudgeFolder';
    expect(Object.keys(task).sort()).toEqual(words(names));
    const named = 'CellWords EmojiBank JudgeModelShape Trace TraceCell TraceMarks TracePicture';
    expect(exportedTypes('src/emoji-judge/index.ts').sort()).toEqual(words(named));
  });

  it('has three doors', () => {
    const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { exports: object };
    expect(Object.keys(exports)).toEqual(['.', './kernels', './emoji-judge', './package.json']);
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
      expect(ownKeys(name, found), name).toEqual(words(keys));
    }
  });

  it('of a stage are those of its recipe', () => {
    const { properties } = gavel.jsonSchemaOf('run') as JsonSchema;
    const choices = properties!['stages']!.items!.oneOf!;
    const recipes = choices.map((choice) => choice.properties!['recipe']!.const as string);
    expect(recipes).toEqual([
      'sft',
      'rejection',
      'grpo',
      'unified-reward-think',
      'dpo',
      'joint',
      'r3v',
      'select-evaluation',
      'evaluate',
      'evaluate-scorer',
    ]);
    for (const [i, recipe] of recipes.entries()) {
      const options = choices[i]!.properties!['options'];
      if (options !== undefined)
        expect(ownKeys(recipe, [...keysOf(options).keys()]), recipe).toEqual(words(configKeys[recipe]!));
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
