/**
 * Shows a job's events: one line that is rewritten on a terminal, a plain line every few seconds elsewhere; what happens
 * once (a stage, a checkpoint, a note, an evaluation) always gets a line of its own.
 */
import type { TrainEvent } from '../recipes/events.js';

export interface ProgressOptions {
  write: (text: string) => void;
  /** Rewrites one line. Default of the command line: when standard error is a terminal and CI is not set. */
  isTerminal: boolean;
  /** Columns of the terminal. */
  columns?: () => number;
  now?: () => number;
  /** Distance of plain lines. */
  plainEveryMs?: number;
}

const terminalEveryMs = 100;

export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
}

export class ProgressRenderer {
  readonly #options: Required<ProgressOptions>;
  #shownMs = -Infinity;
  #openLine = false;

  constructor(options: ProgressOptions) {
    this.#options = { columns: () => 100, now: () => performance.now(), plainEveryMs: 5000, ...options };
  }

  show(event: TrainEvent): void {
    const lasting = lastingLine(event);
    if (lasting !== undefined) return this.line(lasting);
    const passing = passingLine(event);
    if (passing !== undefined) this.passing(passing);
  }

  /** Rewrites the one line, or prints a line every few seconds where there is no terminal. */
  passing(text: string): void {
    const { isTerminal, plainEveryMs, now } = this.#options;
    if (now() - this.#shownMs < (isTerminal ? terminalEveryMs : plainEveryMs)) return;
    this.#shownMs = now();
    if (!isTerminal) return this.#options.write(`${text}\n`);
    this.#options.write(`\r\u001b[2K${text.slice(0, this.#options.columns() - 1)}`);
    this.#openLine = true;
  }

  /** Prints a line that stays. */
  line(text: string): void {
    this.clear();
    this.#options.write(`${text}\n`);
  }

  /** Removes the line that is being rewritten. */
  clear(): void {
    if (this.#openLine) this.#options.write('\r\u001b[2K');
    this.#openLine = false;
  }
}

const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;
const left = (seconds: number | null): string => (seconds === null ? '' : `, ${formatSeconds(seconds)} left`);

function passingLine(event: TrainEvent): string | undefined {
  if (event.type === 'step-end') {
    const value = event.reward === null ? `loss ${event.loss.toFixed(4)}` : `reward ${event.reward.toFixed(3)}`;
    const kl = event.metrics['kl'] === undefined ? '' : `, kl ${event.metrics['kl'].toFixed(4)}`;
    return (
      `[${event.stage}] step ${event.step}/${event.totalSteps}, ${value}${kl}, ` +
      `${Math.round(event.tokensPerSecond)} tokens/s${left(event.secondsLeft)}`
    );
  }
  if (event.type === 'sampling-progress') {
    return (
      `[${event.stage}] ${event.purpose}: ${event.done}/${event.total} items, ${percent(event.accuracy)} correct, ` +
      `${Math.round(event.tokensPerSecond)} tokens/s${left(event.secondsLeft)}`
    );
  }
  return undefined;
}

function lastingLine(event: TrainEvent): string | undefined {
  switch (event.type) {
    case 'stage-start':
      return `[${event.stage}] ${event.recipe}${event.budgetSeconds === null ? '' : `, at most ${formatSeconds(event.budgetSeconds)}`}`;
    case 'stage-end':
      return event.restored
        ? `[${event.stage}] was complete already`
        : `[${event.stage}] done in ${formatSeconds(event.seconds)}` +
            (event.tokensPerSecond === null ? '' : `, ${Math.round(event.tokensPerSecond)} tokens/s`);
    case 'evaluation-end': {
      const { accuracy, accuracyLow, accuracyHigh, formatRate, unseenAccuracy } = event.result;
      const seen =
        accuracy === null
          ? ''
          : ` accuracy ${percent(accuracy)} [${percent(accuracyLow!)}, ${percent(accuracyHigh!)}],`;
      const unseen = unseenAccuracy === null ? '' : ` unseen ${percent(unseenAccuracy)},`;
      return `[${event.stage}] step ${event.step}, ${event.name}:${seen}${unseen} format ${percent(formatRate)}`;
    }
    case 'scoring-end': {
      const { accuracyWithoutTies: accuracy, low, high, count, margin } = event.result;
      const right = accuracy === null ? '' : ` accuracy ${percent(accuracy)} [${percent(low!)}, ${percent(high!)}],`;
      const gap = margin === null ? '' : `, margin ${margin.toFixed(3)}`;
      return `[${event.stage}] step ${event.step}, ${event.name}:${right} ${count} pairs${gap}`;
    }
    case 'selection-end': {
      const { atSize, refine } = event.result;
      const sizes = atSize.map(
        ({ size, passAt1, majority, select }) =>
          `N = ${size}: pass@1 ${percent(passAt1.value)}, majority ${percent(majority.value)}` +
          (select === null ? '' : `, select ${percent(select.value)}`),
      );
      const refined =
        refine === null
          ? []
          : [`refining the first: ${percent(refine.before.value)} to ${percent(refine.after.value)}`];
      return `[${event.stage}] ${event.name}: ${[...sizes, ...refined].join('; ')}`;
    }
    case 'note-taken':
      return `[${event.stage}] ${event.message}`;
    default:
      return undefined;
  }
}
