// Runs a short quickstart on the built package and prints how late the event loop ran meanwhile, as one line of JSON.
// Measured is everything from the first stage to the written report; not loading modules, opening the engine and the folders.
// Usage: node event-loop-child.mjs OUT [--plant MS]   (a busy loop of MS milliseconds in a handler of the sixth step)
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { createHistogram, monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { clearInterval, setInterval } from 'node:timers';
import { runQuickstart } from '../../dist/emoji-judge/quickstart-run.js';
import { smokePlan } from '../../dist/emoji-judge/quickstart.js';

const [out, , plant] = process.argv.slice(2);
const resolutionMs = 2;
const plan = {
  ...smokePlan,
  budgetSeconds: 100,
  test: { seen: 8, unseen: 8 },
  validationItems: 16,
  coldStart: {
    ...smokePlan.coldStart,
    options: { ...smokePlan.coldStart.options, search: undefined },
  },
};

/** [CPU milliseconds of the main thread, milliseconds it waited for a processor], from the kernel. */
function openSchedulerCounts() {
  const file = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
  const buffer = Buffer.alloc(80);
  return {
    read() {
      const [ran, waited] = buffer.toString('latin1', 0, readSync(file, buffer, 0, 80, 0)).split(' ');
      return [Number(ran) / 1e6, Number(waited) / 1e6];
    },
    close: () => closeSync(file),
  };
}

/** Ticks of all processors in use, what the hypervisor took included. */
function busyTicks() {
  const [user, nice, system, , , irq, softIrq, steal] = /^cpu +(.*)/
    .exec(readFileSync('/proc/stat', 'utf8'))[1]
    .split(' ')
    .map(Number);
  return user + nice + system + irq + softIrq + steal;
}

const ownSeconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

/**
 * How late the loop ran. `measured` is monitorEventLoopDelay beyond its resolution. `own` leaves out the time in which the
 * thread was ready but had no processor and in which the loop was idle: what is left is what this process did itself.
 */
function watchLoop() {
  const measured = monitorEventLoopDelay({ resolution: resolutionMs });
  const own = createHistogram();
  const counts = openSchedulerCounts();
  const started = { ms: performance.now(), busy: busyTicks(), own: ownSeconds() };
  let last = { ms: started.ms, counts: counts.read(), loop: performance.eventLoopUtilization() };
  const timer = setInterval(() => {
    const now = { ms: performance.now(), counts: counts.read(), loop: performance.eventLoopUtilization() };
    const [ran, waited] = [0, 1].map((i) => now.counts[i] - last.counts[i]);
    const notWaiting = now.ms - last.ms - waited;
    const ms = Math.max(ran, Math.min(now.loop.active - last.loop.active, notWaiting));
    own.record(Math.max(1, Math.round(ms * 1e6)));
    last = now;
  }, resolutionMs);
  measured.enable();
  return () => {
    measured.disable();
    clearInterval(timer);
    counts.close();
    const seconds = (performance.now() - started.ms) / 1000;
    const others = (busyTicks() - started.busy) / 100 - (ownSeconds() - started.own);
    const beyond = (ns) => Math.max(0, ns / 1e6 - resolutionMs);
    return {
      seconds,
      /** Processors that others kept busy meanwhile. */
      others: Math.max(0, others / seconds),
      measured: { max: beyond(measured.max), p999: beyond(measured.percentile(99.9)), ticks: measured.count },
      own: { max: own.max / 1e6, p999: own.percentile(99.9) / 1e6, ticks: own.count },
    };
  };
}

let finish;
let steps = 0;
const result = await runQuickstart({
  out,
  seed: 1,
  plan,
  onEvent: (event) => {
    finish ??= watchLoop();
    if (event.type === 'step-end' && ++steps === 6 && plant !== undefined) {
      // Milliseconds of work: on a busy machine the clock alone would also count those of others.
      const counts = openSchedulerCounts();
      const until = counts.read()[0] + Number(plant);
      while (counts.read()[0] < until);
      counts.close();
    }
  },
});
console.log(JSON.stringify({ ...finish(), steps, stages: result.summary.stages.length }));
