/** Runs a script against the built package in a Node process of its own and tells how that ended. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export const root = join(import.meta.dirname, '../..');
const textFolder = join(root, 'test/goldens/micro-text');

/** What every script begins with: an engine's model and a run that does not end by itself. */
const prelude = `
import { createEngine, GavelError } from ${JSON.stringify(pathToFileURL(join(root, 'dist/index.js')).href)};
const textFolder = ${JSON.stringify(textFolder)};
const prompt = Int32Array.of(5, 9, 33, 21, 7);
const endless = (model, id = 1) => model.sample([{ id, promptTokens: prompt, count: 4, maxNewTokens: 30000, stopTokens: new Int32Array(0) }]);
const soon = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
`;

export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface ChildOptions {
  /** On top of this process's own. */
  env?: Readonly<Record<string, string>>;
  nodeOptions?: readonly string[];
  /** Whether engines with more threads than the machine has cores may say so: most scripts do not count cores. */
  tellsOversubscribed?: boolean;
  /** Sent once the script has printed 'ready'. */
  signalWhenReady?: NodeJS.Signals;
  timeoutMs?: number;
}

/** A script that hangs is killed with SIGKILL, which the caller's expectations on code and signal then show. */
export function runScript(body: string, options: ChildOptions = {}): Promise<Ending> {
  const { nodeOptions = [], tellsOversubscribed = false, signalWhenReady, timeoutMs = 60_000 } = options;
  const quiet = tellsOversubscribed ? [] : ['--disable-warning=GAVEL_OVERSUBSCRIBED'];
  const env = { ...process.env, ...options.env };
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...nodeOptions, ...quiet, '--input-type=module', '-e', prelude + body], {
      cwd: root,
      env,
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      if (signalWhenReady !== undefined && text.includes('ready')) child.kill(signalWhenReady);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr });
    });
  });
}
