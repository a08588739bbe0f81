/** Keeps loops in plain JavaScript from holding the event loop: call `breathe` once an iteration. */
import { setImmediate as nextTurn } from 'node:timers/promises';

const sliceMs = 5;

export class Pace {
  #sliceStart = performance.now();

  /** Gives the event loop a turn when the present slice has lasted 5 ms. */
  async breathe(): Promise<void> {
    if (performance.now() - this.#sliceStart < sliceMs) return;
    await nextTurn();
    this.#sliceStart = performance.now();
  }
}
