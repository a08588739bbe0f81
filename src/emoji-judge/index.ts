/**
 * `gavel-rl/emoji-judge`: the quickstart's task on real artwork, which a small model learns in minutes. For trying recipes,
 * rewards and verifiers of one's own before there are data. docs/quickstart.md says what it asks.
 */
export { loadEmojiBank, type EmojiBank } from './bank.js';
export { directPrompt, judgePrompt, lookPrompt } from './prompts.js';
export { QuickstartData } from './quickstart-data.js';
export type { CellWords } from './scene.js';
export { markTrace, parseTrace, type Trace, type TraceCell, type TraceMarks, type TracePicture } from './traces.js';
export { writeJudgeFolder, type JudgeModelShape } from './vocabulary.js';
