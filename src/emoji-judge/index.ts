/** The emoji judge: a task on real artwork that a small model learns in minutes. */
export { type EmojiBank, loadEmojiBank } from './bank.js';
export { directRow, judgeRow, lookRow, makeLooks, makePairs } from './items.js';
export { type Difficulty, type JudgePair, makePair, type PairOptions, swapOrder, type Verdict } from './pair.js';
export { type LookItem, makeLook } from './perception.js';
export { directPrompt, goldRationale, judgePrompt, lookPrompt } from './prompts.js';
export { type CellWords, composeScene, type Scene } from './scene.js';
export { markTrace, meanMarks, parseTrace, type Trace, type TraceMarks } from './traces.js';
export { type JudgeModelShape, writeJudgeFolder } from './vocabulary.js';
