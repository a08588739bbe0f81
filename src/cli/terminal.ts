/** Where the command speaks: results on standard output, progress and notes on standard error. */
import { once } from 'node:events';
import { ProgressRenderer } from './progress.js';

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** As `print`, but resolves when the reader keeps up: however much is printed, little of it waits in memory. */
export async function printLine(text: string): Promise<void> {
  if (process.stdout.write(`${text}\n`)) return;
  await once(process.stdout, 'drain');
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

export function progressOnTerminal(): ProgressRenderer {
  const { stderr } = process;
  return new ProgressRenderer({
    write: (text) => void stderr.write(text),
    isTerminal: stderr.isTTY === true && !process.env['CI'],
    columns: () => stderr.columns ?? 100,
  });
}

/** An argument as a shell takes it back. */
export function shellQuote(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`;
}
