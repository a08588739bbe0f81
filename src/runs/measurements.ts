/**
 * What the events of a run measured: evaluations of a judge, of a scorer and of test-time selection under one form, so that
 * reports, curves, TensorBoard and the paired comparison of runs treat them alike.
 */

type Fields = Readonly<Record<string, unknown>>;

/** The numbers of a set in a stage. `accuracy` with its interval is what the measurement is about. */
export interface Measurement {
  stage: string;
  /** Of the set; of a selection with its system: 'test, select, N = 3'. */
  name: string;
  /** Of the stage. */
  step: number;
  values: Readonly<Record<string, number>>;
  /** Between 0 and 1, by id of the item; absent where they were not kept. */
  marks?: Fields;
}

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const numbersOf = (fields: Fields): Record<string, number> =>
  Object.fromEntries(Object.entries(fields).filter((entry): entry is [string, number] => Number.isFinite(entry[1])));

/** None for every other event. Reads what was logged, so nothing is taken on trust. */
export function measurementsOf(event: Fields): Measurement[] {
  const { type, stage, name, step, result, marks } = event;
  if (typeof stage !== 'string' || typeof name !== 'string' || typeof step !== 'number' || !isFields(result)) return [];
  const place = { stage, name, step };
  if (type === 'evaluation-end') {
    const { marks: own, ...rates } = result;
    return [{ ...place, values: numbersOf(rates), ...(isFields(own) && { marks: own }) }];
  }
  if (type === 'scoring-end') {
    const { accuracyWithoutTies: accuracy, low: accuracyLow, high: accuracyHigh, ...others } = result;
    const values = numbersOf({ accuracy, accuracyLow, accuracyHigh, ...others });
    return [{ ...place, values, ...(isFields(marks) && { marks }) }];
  }
  return type === 'selection-end' ? selections(place, result, isFields(marks) ? marks : {}) : [];
}

/** An event as events.jsonl holds it: marks stand in evaluations.jsonl. */
export function withoutMarks(event: object): object {
  const { marks: _marks, result, ...rest } = event as { marks?: unknown; result?: unknown };
  if (result === undefined) return rest;
  if (!isFields(result)) return { ...rest, result };
  const { marks: _own, ...others } = result;
  return { ...rest, result: others };
}

function selections(place: Omit<Measurement, 'values'>, result: Fields, marks: Fields): Measurement[] {
  const { atSize, refine, count } = result;
  const measured = (system: string, rate: unknown, key: string): Measurement[] => {
    if (!isFields(rate)) return [];
    const { value: accuracy, low: accuracyLow, high: accuracyHigh } = rate;
    const own = marks[key];
    const values = numbersOf({ count, accuracy, accuracyLow, accuracyHigh });
    return [{ ...place, name: `${place.name}, ${system}`, values, ...(isFields(own) && { marks: own }) }];
  };
  const sizes = Array.isArray(atSize) ? atSize.filter(isFields) : [];
  return [
    ...sizes.flatMap(({ size, passAt1, majority, select }) => [
      ...measured(`pass@1, N = ${String(size)}`, passAt1, `passAt1@${String(size)}`),
      ...measured(`majority, N = ${String(size)}`, majority, `majority@${String(size)}`),
      ...measured(`select, N = ${String(size)}`, select, `select@${String(size)}`),
    ]),
    ...(isFields(refine) ? measured('refined', refine['after'], 'refine') : []),
  ];
}
