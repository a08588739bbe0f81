/**
 * The form of a reasoned verdict: `<think> ... </think><answer> ... </answer>`. Parsing is by search for the tags, in linear
 * time whatever the text.
 */
import type { RewardFunction } from './reward.js';

/** What stands in the tags of a completion; null where there is no such block. */
export interface ParsedCompletion {
  /** Text of the first think block, as it is. */
  rationale: string | null;
  /** Text of the first answer block, trimmed. */
  answer: string | null;
}

/** Takes the first think and the first answer block of a text. */
export function parseCompletion(text: string): ParsedCompletion {
  return {
    rationale: firstBlock(text, 'think')?.inner ?? null,
    answer: firstBlock(text, 'answer')?.inner.trim() ?? null,
  };
}

function firstBlock(text: string, tag: string, from = 0): { inner: string; start: number; end: number } | undefined {
  const start = text.indexOf(`<${tag}>`, from);
  if (start < 0) return undefined;
  const inner = start + tag.length + 2;
  const end = text.indexOf(`</${tag}>`, inner);
  return end < 0 ? undefined : { inner: text.slice(inner, end), start, end: end + tag.length + 3 };
}

/**
 * True when the whole text is exactly one think block followed by exactly one answer block: anchored at both ends, each tag
 * once, nothing but blanks around and between the blocks.
 */
export function hasStrictFormat(text: string): boolean {
  const think = firstBlock(text, 'think');
  if (think === undefined) return false;
  const answer = firstBlock(text, 'answer', think.end);
  if (answer === undefined) return false;
  const outside = text.slice(0, think.start) + text.slice(think.end, answer.start) + text.slice(answer.end);
  return (
    outside.trim() === '' && !/<\/?(?:think|answer)>/.test(think.inner) && !/<\/?(?:think|answer)>/.test(answer.inner)
  );
}

/**
 * The looser match of public implementations: a text that starts with a think block, then blanks, then an answer block;
 * anything may follow, and tags may repeat inside.
 */
export function hasLooseFormat(text: string): boolean {
  if (!text.startsWith('<think>')) return false;
  // A think block may end at any of its closing tags: the one that an answer follows.
  const following = /<\/think>\s*<answer>/g;
  following.lastIndex = '<think>'.length;
  const match = following.exec(text);
  return match !== null && text.indexOf('</answer>', match.index + match[0].length) >= 0;
}

/** 1 for a completion in the format, else 0. `strict` (default true) anchors at both ends; see the two functions above. */
export function formatReward(options: { strict?: boolean } = {}): RewardFunction {
  const matches = (options.strict ?? true) ? hasStrictFormat : hasLooseFormat;
  return ({ completion }) => (matches(completion) ? 1 : 0);
}
