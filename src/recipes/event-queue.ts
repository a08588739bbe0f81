/**
 * Hands events to any number of `for await` readers. The first reader also gets what happened before it came; a slow reader
 * loses progress events beyond a bound, never state events.
 */
const mostWaiting = 10_000;
const progressTypes: ReadonlySet<string> = new Set(['step-end', 'sampling-progress']);

interface Reader<T> {
  waiting: T[];
  wake: (() => void) | undefined;
}

export class EventQueue<T extends { type: string }> {
  readonly #readers = new Set<Reader<T>>();
  #backlog: T[] | undefined = [];
  #ended = false;
  #failure: { error: unknown } | undefined;

  push(event: T): void {
    if (this.#backlog !== undefined) keep(this.#backlog, event);
    for (const reader of this.#readers) {
      keep(reader.waiting, event);
      reader.wake?.();
    }
  }

  /** No event follows; with a failure, readers throw it after the last event. */
  end(failure?: { error: unknown }): void {
    this.#ended = true;
    this.#failure = failure;
    for (const reader of this.#readers) reader.wake?.();
  }

  async *read(): AsyncGenerator<T, void, undefined> {
    const reader: Reader<T> = { waiting: this.#backlog ?? [], wake: undefined };
    this.#backlog = undefined;
    this.#readers.add(reader);
    try {
      for (;;) {
        while (reader.waiting.length > 0) yield reader.waiting.shift()!;
        if (this.#ended) break;
        await new Promise<void>((resolve) => (reader.wake = resolve));
        reader.wake = undefined;
      }
      if (this.#failure !== undefined) throw this.#failure.error;
    } finally {
      this.#readers.delete(reader);
    }
  }
}

function keep<T extends { type: string }>(events: T[], event: T): void {
  events.push(event);
  if (events.length <= mostWaiting) return;
  const oldest = events.findIndex(({ type }) => progressTypes.has(type));
  if (oldest >= 0) events.splice(oldest, 1);
}
