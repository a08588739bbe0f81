// A measuring process, ours or a peer's: it says it is ready in one JSON line, then answers every line with one
// measurement {wall, cpu, memoryBytes, ...}. Between requests it sleeps, so several can stand by while one works.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { clearTimeout, setTimeout } from 'node:timers';
import { busySeconds, otherShare, projectRoot } from './machine.mjs';

export class Session {
  #child;
  #lines;
  #errors = '';

  /** Starts `program args`; `threads` is told to every library that might start its own. */
  constructor(program, args, { threads, env = {} }) {
    const count = String(threads);
    this.#child = spawn(program, args, {
      cwd: projectRoot,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, OMP_NUM_THREADS: count, MKL_NUM_THREADS: count, ...env },
    });
    this.#child.stderr.on('data', (text) => (this.#errors = (this.#errors + text).slice(-2000)));
    this.#child.on('error', (error) => (this.#errors += error.message));
    this.#child.stdin.on('error', (error) => (this.#errors += error.message));
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.name = `${program} ${args.join(' ')}`;
  }

  get pid() {
    return this.#child.pid;
  }

  async #answer() {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done) throw new Error(`Expected an answer of \`${this.name}\` but it ended. ${this.#errors.trim()}`);
      // Libraries print what they like; an answer is a JSON object on a line of its own.
      if (value.startsWith('{')) return JSON.parse(value);
    }
  }

  /** What the process says of itself: {ready, memoryBytes, flop?, bytes?, path?}. */
  async ready() {
    this.facts = await this.#answer();
    return this.facts;
  }

  /** One measurement, with the share of the machine others used meanwhile; `request` is a line for programs that read it. */
  async measure(request = '') {
    const busy = busySeconds();
    const started = performance.now();
    this.#child.stdin.write(`${request}\n`);
    const answer = await this.#answer();
    const own = answer.cpu * (answer.calls ?? 1);
    return { ...answer, other: otherShare(busySeconds() - busy, own, (performance.now() - started) / 1000) };
  }

  /** Ends the process. */
  async close() {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.stdin.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(timer);
  }
}

/** Runs `use` with the sessions ready and ends them whatever happens. */
export async function withSessions(sessions, use) {
  try {
    for (const session of sessions) await session.ready();
    return await use();
  } finally {
    await Promise.all(sessions.map((session) => session.close()));
  }
}

/** Up to `rounds` measurements of one session after a warm-up; at least two, then no more than `seconds` allow. */
export async function repeat(session, rounds, { seconds = Infinity, request } = {}) {
  await session.measure(request);
  const samples = [];
  const started = performance.now();
  while (samples.length < rounds && (samples.length < 2 || (performance.now() - started) / 1000 < seconds))
    samples.push(await session.measure(request));
  return samples;
}

/**
 * A B A B ... after a warm-up of each: pairs see the same minute of the machine. Rounds as in `repeat`. The first session must
 * work; another that fails is left out with a line on the console, and its samples are undefined.
 */
export async function interleave(sessions, rounds, { seconds = Infinity, warm = '' } = {}) {
  const [first] = sessions;
  const samples = sessions.map(() => []);
  const attempt = async (i, work) => {
    if (samples[i] === undefined) return undefined;
    try {
      return await work(sessions[i]);
    } catch (error) {
      if (sessions[i] === first) throw error;
      console.log(`  left out: ${error.message}`);
      samples[i] = undefined;
      return undefined;
    }
  };
  try {
    for (const i of sessions.keys()) await attempt(i, (session) => session.ready());
    for (const i of sessions.keys()) await attempt(i, (session) => session.measure(warm));
    const started = performance.now();
    for (let round = 0; round < rounds; round++) {
      if (round >= Math.min(2, rounds) && (performance.now() - started) / 1000 > seconds) break;
      for (const i of sessions.keys()) {
        const sample = await attempt(i, (session) => session.measure());
        if (sample !== undefined) samples[i].push(sample);
      }
    }
  } finally {
    await Promise.all(sessions.map((session) => session.close()));
  }
  return samples;
}
