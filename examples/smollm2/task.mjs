// The task: sums with a verifiable answer, in a form that the base model does not use by itself.
import { Tokenizer, Processor } from 'gavel-rl';

/** A counter hash: the same numbers on every machine. */
const hash = (i) => Math.imul((i + 1) ^ ((i + 1) >>> 15), 2246822519) >>> 7;

/** `count` different sums of two numbers below `limit`; `part` keeps training and held-out sums apart. */
export function makeSums(count, limit, part) {
  const sums = new Map();
  for (let i = 0; sums.size < count; i++) {
    const a = hash(3 * i) % limit;
    const b = hash(3 * i + 1) % limit;
    const heldOut = hash(a * 1000 + b) % 4 === 0;
    if (heldOut === (part === 'held-out')) sums.set(`${a} + ${b}`, { id: sums.size, a, b, answer: a + b });
  }
  return [...sums.values()];
}

const ask = ({ a, b }) => `What is ${a} + ${b}? Reply with "Answer: " and the number.`;

/** 1 for the right number in the right form, 0.2 for the form alone, else 0. */
export function rewardOf(text, { answer }) {
  const found = /^Answer: (\d+)\.?$/.exec(text.trim());
  if (found === null) return 0;
  return Number(found[1]) === answer ? 1 : 0.2;
}

export const goldText = ({ answer }) => `Answer: ${answer}`;

/** Prompts and texts of one checkpoint folder. */
export async function openText(folder) {
  const [tokenizer, processor] = await Promise.all([Tokenizer.load(folder), Processor.load(folder)]);
  const chat = (text) => Int32Array.from(tokenizer.encode(processor.renderPrompt(text)));
  return {
    chat,
    prompt: (sum) => chat(ask(sum)),
    target: (sum) => processor.encodeCompletion(goldText(sum)),
    decode: (tokens) => processor.decodeCompletion(tokens),
  };
}

/** The mean and its 95 % interval by 2000 resamples of the rewards. */
export function bootstrap(rewards) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const means = Array.from({ length: 2000 }, (_, draw) =>
    mean(rewards.map((_, i) => rewards[hash(draw * 4099 + i) % rewards.length])),
  ).sort((a, b) => a - b);
  return { mean: mean(rewards), low: means[50], high: means[1949] };
}
