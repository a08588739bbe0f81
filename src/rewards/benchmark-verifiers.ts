/**
 * Verifiers of the sets R3V trains on (Cheng et al. 2024, "Vision-Language Models Can Self-Improve Reasoning via
 * Reflection"): ChartQA's relaxed numbers, CLEVR-Math's digits, GeoQA's option letters, TabMWP's normalised answers. A
 * completion that cannot be parsed is wrong, never random; a gold answer that cannot be one is 'bad_data'.
 */
import { expected, type GavelError } from '../errors.js';
import { extractAnswer, type AnswerForm } from './answer-forms.js';
import type { Verdict, Verifier } from './verifier.js';

const unparsed: Verdict = { correct: false, answer: null };

/** ASCII minus for the typographic ones. */
const withMinus = (text: string): string => text.replace(/[\u2212\u2013]/g, '-');

/** Digits, with or without well-formed thousands separators: 1234, 1,234.5, .5 */
const digits = String.raw`(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+`;

const quantityPattern = new RegExp(`^([-+]?)\\s*(${digits})((?:e[-+]?\\d+)?)\\s*([^\\d,.:/\\-][^\\d]*)?$`, 'i');

/** A number and what follows it, or null: "-1,200 km" is -1200 and "km". Years, dates and ratios with more digits are text. */
function quantityOf(text: string): { value: number; unit: string } | null {
  const match = quantityPattern.exec(withMinus(text.trim()));
  if (match === null) return null;
  const [, sign, number, exponent, unit = ''] = match;
  const value = Number(`${number!.replaceAll(',', '')}${exponent}`) * (sign === '-' ? -1 : 1);
  return Number.isFinite(value) ? { value, unit: unit.trim().toLowerCase() } : null;
}

/**
 * ChartQA's relaxed accuracy (Masry et al. 2022): a number within 5 % of the gold number, the bound included; gold 0 needs 0.
 * A percentage counts as its hundredth where the other side has no percent sign, and any other unit must be the gold's.
 * Text must be equal but for case.
 */
export const relaxedNumericVerifier =
  (form: AnswerForm = 'tags'): Verifier =>
  (completion, gold) => {
    const answer = extractAnswer(completion, form);
    if (answer === null) return unparsed;
    const [said, right] = [quantityOf(answer), quantityOf(gold)];
    if (said === null || right === null) {
      return { correct: answer.toLowerCase() === gold.trim().toLowerCase(), answer };
    }
    const [a, b] = said.unit === right.unit ? [said, right] : [fromPercent(said), fromPercent(right)];
    return { correct: a.unit === b.unit && Math.abs(a.value - b.value) <= 0.05 * Math.abs(b.value), answer };
  };

const fromPercent = ({ value, unit }: { value: number; unit: string }): { value: number; unit: string } =>
  unit === '%' ? { value: value / 100, unit: '' } : { value, unit };

/** CLEVR-Math: the answer is nothing but the gold integer's digits, a minus before and one full stop after them allowed. */
export const exactDigitsVerifier =
  (form: AnswerForm = 'tags'): Verifier =>
  (completion, gold) => {
    const right = integerIn(gold);
    if (right === null) throw badGold('an integer', gold);
    const answer = integerIn(extractAnswer(completion, form) ?? '');
    return { correct: answer === right, answer };
  };

const integerIn = (text: string): string | null => /^(-?\d+)\.?$/.exec(withMinus(text.trim()))?.[1] ?? null;

/**
 * GeoQA: one option letter, as "B", "b", "(B)", "B.", "option B", or before the option's text as in "(B) 30" and "B. 30".
 * More than one option ("A or B", "(A) and (B)", "AB") is no answer.
 */
export const optionLetterVerifier =
  (form: AnswerForm = 'tags'): Verifier =>
  (completion, gold) => {
    const right = optionIn(gold);
    if (right === null) throw badGold('an option letter', gold);
    const answer = optionIn(extractAnswer(completion, form) ?? '');
    return { correct: answer === right, answer };
  };

/** The letter alone, or bracketed or pointed before text that names no other option in the same way. */
function optionIn(text: string): string | null {
  const match = /^(?:(?:option|choice)\s+)?(?:\(([a-z])\)|([a-z])(?:[.):]|$))\s*(.*)$/is.exec(text.trim());
  if (match === null) return null;
  const [, bracketed, pointed, rest] = match;
  if (/^(?:or|and)\b|^[,/&]|\([a-z]\)|\b[a-z][.):](?:\s|$)/i.test(rest!)) return null;
  return (bracketed ?? pointed)!.toUpperCase();
}

/**
 * TabMWP's normalisation (Lu et al. 2023), without its guess among options: a leading "$" and one trailing sign of , . / are
 * left out, numbers lose thousands separators and count to three decimals, a/b is divided, text is compared without case.
 * The item's `meta.unit` is left out where it stands after the answer; with `meta.choices` the answer names a choice by its
 * letter or its text.
 */
export const tabmwpVerifier =
  (form: AnswerForm = 'tags'): Verifier =>
  (completion, gold, meta) => {
    const unit = typeof meta?.['unit'] === 'string' ? meta['unit'] : '';
    const said = extractAnswer(completion, form);
    if (said === null) return unparsed;
    const choice = Array.isArray(meta?.['choices']) ? chosen(said, meta['choices'].map(String), unit) : said;
    if (choice === null) return unparsed;
    const answer = normalizedAnswer(choice, unit);
    return { correct: answer.toLowerCase() === normalizedAnswer(gold, unit).toLowerCase(), answer };
  };

function chosen(answer: string, choices: readonly string[], unit: string): string | null {
  const same = (choice: string): boolean =>
    normalizedAnswer(choice, unit).toLowerCase() === normalizedAnswer(answer, unit).toLowerCase();
  const named = choices.find(same);
  if (named !== undefined) return named;
  const letter = optionIn(answer);
  return letter === null ? null : (choices[letter.charCodeAt(0) - 'A'.charCodeAt(0)] ?? null);
}

const amountPattern = new RegExp(`^([-+]?)(${digits})(?:/(${digits}))?$`);

function normalizedAnswer(text: string, unit: string): string {
  const bare = withoutUnit(withMinus(text.trim()), unit)
    .replace(/^([-+]?)\s*\$\s*/, '$1')
    .replace(/(?<![AP]\.M)[,./]$/i, '')
    .trim();
  const match = amountPattern.exec(bare);
  if (match === null) return bare;
  const [sign, over, under] = [match[1] === '-' ? -1 : 1, numberOf(match[2]!), numberOf(match[3] ?? '1')];
  if (under === 0) return bare;
  const rounded = Math.round((over / under) * 1000) / 1000;
  return String(rounded === 0 ? 0 : sign * rounded);
}

const numberOf = (text: string): number => Number(text.replaceAll(',', ''));

const withoutUnit = (text: string, unit: string): string =>
  unit !== '' && unit !== '$' && text.toLowerCase().endsWith(unit.toLowerCase())
    ? text.slice(0, text.length - unit.length).trim()
    : text;

function badGold(what: string, gold: string): GavelError {
  return expected('bad_data', 'solution', what, gold, 'Correct the gold answer, or choose another verifier.');
}
