// The command line of `npm run bench`.
import process from 'node:process';
import { parseArgs } from 'node:util';
import { deviceInfo } from 'gavel-rl';

const usage = `npm run bench -- [options]
  (none)             own figures: the machine's peaks, kernels, engine workloads, curves
  --peers            the same work by PyTorch, transformers, TRL and llama.cpp, interleaved (bench/peers/find.mjs)
  --profile          where the cycles of a GRPO step go
  --only NAME,...    workloads or ops, or curves, exactness, load
  --dtypes D,...     fp32, bf16 (both)
  --threads N,...    1 and 2, as many as the machine has
  --rounds N         pairs of a case (5; 1 with --quick)
  --seconds N        of one case against peers (40)
  --quick            tiny counts, nothing stored
  --help             this`;

function fail(message) {
  console.error(`${message}\n${usage}`);
  process.exit(2);
}

function numbers(flag, text, accepts, expected) {
  const made = text.split(',').map(Number);
  if (!made.every(accepts)) fail(`Expected ${expected} for \`--${flag}\` but received '${text}'.`);
  return made;
}

const positive = (value) => Number.isInteger(value) && value > 0;

/** Ends the process with status 2 for what it does not know, and with 0 after --help. */
export function benchOptions() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        peers: { type: 'boolean', default: false },
        profile: { type: 'boolean', default: false },
        quick: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
        only: { type: 'string' },
        dtypes: { type: 'string', default: 'fp32,bf16' },
        threads: { type: 'string' },
        rounds: { type: 'string' },
        seconds: { type: 'string', default: '40' },
      },
    }));
  } catch (error) {
    fail(error.message);
  }
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const dtypes = values.dtypes.split(',');
  if (!dtypes.every((name) => name === 'fp32' || name === 'bf16'))
    fail(`Expected fp32, bf16 or both for \`--dtypes\` but received '${values.dtypes}'.`);
  const most = deviceInfo().hardwareThreads;
  const threads = numbers(
    'threads',
    values.threads ?? (most > 1 ? '1,2' : '1'),
    (value) => positive(value) && value <= most,
    `counts from 1 to ${most}`,
  );
  const [rounds] = numbers('rounds', values.rounds ?? (values.quick ? '1' : '5'), positive, 'a count of at least 1');
  const [seconds] = numbers('seconds', values.seconds, (value) => value > 0, 'seconds above 0');
  const only = values.only?.split(',').filter((name) => name !== '');
  const known = new Set();
  return {
    ...values,
    dtypes,
    threads,
    rounds,
    seconds,
    selected(name) {
      known.add(name);
      return only === undefined || only.includes(name);
    },
    /** What was asked for by a name that nothing has, once every case was offered to `selected`. */
    refuseUnknown() {
      const unknown = only?.filter((name) => !known.has(name)) ?? [];
      if (unknown.length > 0)
        fail(`Expected names of ${[...known].sort().join(', ')} for \`--only\` but received '${unknown.join(',')}'.`);
    },
  };
}
