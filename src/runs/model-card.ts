/**
 * README.md of an exported model: front matter as the hub reads it, how to load it, and recipe, data and metrics of the run
 * it comes from. Nothing is said that the run does not record.
 */
import { stringify } from 'yaml';
import type { EvaluationFacts, RunFacts } from './run-facts.js';

export interface ModelCardFacts {
  name: string;
  kind: 'model' | 'adapter';
  /** Whether it reads pictures. */
  vision: boolean;
  /** Hub id of what was trained, when known. */
  base: string | undefined;
  /** Licence fields as the base model's card has them, or as the user gave them. */
  licence: Readonly<Record<string, string>>;
  dtype: string;
  numParameters: number;
  run: RunFacts | undefined;
  /** Of this package. */
  version: string;
}

const number = (value: number | null, digits = 4): string =>
  value === null ? '-' : String(Number(value.toFixed(digits)));
const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');
const table = (rows: readonly (readonly string[])[]): string => {
  const [head, ...body] = rows.map((row) => `| ${row.map(cell).join(' | ')} |`);
  return [head, `|${' --- |'.repeat(rows[0]!.length)}`, ...body].join('\n');
};

const interval = ({ accuracy, accuracyLow, accuracyHigh }: EvaluationFacts): string =>
  accuracy === null ? '-' : `${number(accuracy)} [${number(accuracyLow)}, ${number(accuracyHigh)}]`;

/** Methods of the run as tags, each once. */
const methods = (run: RunFacts | undefined): string[] => [
  ...new Set((run?.stages ?? []).map(({ recipe }) => recipe).filter((recipe) => recipe !== 'evaluate')),
];

function frontMatter({ kind, vision, base, licence, run }: ModelCardFacts): string {
  return stringify({
    ...licence,
    ...(base === undefined
      ? {}
      : { base_model: base, base_model_relation: kind === 'adapter' ? 'adapter' : 'finetune' }),
    library_name: kind === 'adapter' ? 'peft' : 'transformers',
    pipeline_tag: vision ? 'image-text-to-text' : 'text-generation',
    tags: ['gavel-rl', ...(kind === 'adapter' ? ['lora'] : []), ...methods(run)],
  });
}

function usage({ kind, vision, base }: ModelCardFacts): string {
  const model = vision ? 'AutoModelForImageTextToText' : 'AutoModelForCausalLM';
  const reader = vision ? 'AutoProcessor' : 'AutoTokenizer';
  const lines =
    kind === 'model'
      ? [
          `from transformers import ${model}, ${reader}`,
          '',
          `model = ${model}.from_pretrained("path/to/this/folder")`,
          `${vision ? 'processor' : 'tokenizer'} = ${reader}.from_pretrained("path/to/this/folder")`,
        ]
      : [
          'from peft import PeftModel',
          `from transformers import ${model}`,
          '',
          `base = ${model}.from_pretrained("${base ?? 'path/to/the/base/model'}")`,
          'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        ];
  return ['```python', ...lines, '```'].join('\n');
}

/** `data` of a stage and of its validation, as the configuration names them. */
function dataOf(run: RunFacts, stage: string): string {
  const stages = run.config['stages'];
  if (!Array.isArray(stages)) return '-';
  const found = (stages as Record<string, { path?: string } | string | undefined>[]).find(({ name }) => name === stage);
  const path = (key: string): string | undefined => (found?.[key] as { path?: string } | undefined)?.path;
  const names = [path('data'), path('validation')].filter((name) => name !== undefined);
  return names.length === 0 ? '-' : names.join(', validated on ');
}

function training(run: RunFacts): string[] {
  const rows = run.stages.map(({ stage, recipe, steps, loss, reward, seconds }) => [
    ...[stage, recipe, dataOf(run, stage), number(steps), number(loss), number(reward), number(seconds, 0)],
  ]);
  const { stages, plan, seed } = run.config;
  const recipe = stages !== undefined ? { stages } : { ...(seed === undefined ? {} : { seed }), plan };
  return [
    '## Training',
    table([['stage', 'recipe', 'data', 'steps', 'last loss', 'last reward', 'seconds'], ...rows]),
    'The whole recipe, defaults filled in:',
    `\`\`\`yaml\n${stringify(recipe)}\`\`\``,
  ];
}

function evaluation({ evaluations }: RunFacts): string[] {
  if (evaluations.length === 0) return [];
  const rows = evaluations.map((found) => [
    ...[found.stage, found.name, number(found.step), number(found.count), interval(found)],
    ...[number(found.formatRate), number(found.orderConsistency)],
  ]);
  const head = ['stage', 'set', 'step', 'items', 'accuracy [95 %]', 'format rate', 'order consistency'];
  return ['## Evaluation', table([head, ...rows])];
}

/** The whole file. */
export function modelCard(facts: ModelCardFacts): string {
  const { name, kind, base, dtype, numParameters, run, version } = facts;
  const what = kind === 'adapter' ? 'A LoRA adapter' : 'A model';
  const of = base === undefined ? '' : ` of \`${base}\``;
  const parts = [
    `---\n${frontMatter(facts)}---`,
    `# ${name}`,
    `${what}${of}, ${run === undefined ? 'exported by' : 'trained with'} gavel-rl ${version}: ` +
      `${numParameters.toLocaleString('en-US')} parameters in ${dtype}.`,
    '## Use',
    usage(facts),
    ...(run === undefined ? [] : [...training(run), ...evaluation(run)]),
  ];
  return `${parts.join('\n\n')}\n`;
}
