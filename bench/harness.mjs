// The one file that knows `benchmark`: median wall seconds of a synchronous function, and its CPU seconds beside.
import Benchmark from 'benchmark';
import { availableParallelism } from 'node:os';
import { busySeconds, otherShare } from './machine.mjs';
import { median } from './statistics.mjs';

/** Samples until `minSamples` and `seconds` are reached; seconds per call. Garbage collection counts: callers pay it too. */
export function timeCall(fn, { seconds = 1, minSamples = 5 } = {}) {
  fn();
  let calls = 0;
  const counted = () => {
    calls += 1;
    fn();
  };
  const run = new Benchmark({ fn: counted, maxTime: seconds, minSamples, initCount: 1 });
  const busy = busySeconds();
  const usage = process.cpuUsage();
  const started = performance.now();
  run.run();
  if (run.error) throw run.error;
  const elapsed = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(usage);
  const cpu = (user + system) / 1e6;
  return {
    wall: median(run.stats.sample),
    cpu: cpu / calls,
    samples: run.stats.sample.length,
    other: otherShare(busySeconds() - busy, cpu, elapsed),
    cores: availableParallelism(),
  };
}
