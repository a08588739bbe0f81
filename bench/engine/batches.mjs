// The inputs of every workload, from a counter hash: bench/peers/batches.py draws the same.
const hash = (i) => Math.imul(i + 1, 2654435761) >>> 8;

/** Id of the reward token of `score`. */
export const rewardToken = 1;

/** `count` tokens that are neither special nor placeholders; `low` is the first such id. */
export const tokensFrom = (start, count, vocabulary, low = 3) =>
  Int32Array.from({ length: count }, (_, i) => low + (hash(start + i) % (vocabulary - low)));

const firstTextId = (config) => (config.vision_config === undefined ? 3 : 7);

/** Picture `index` as the vision tower takes it: patches of 2 x 3 x 14 x 14 in [-1, 1). */
function picture(index, [rows, columns]) {
  const count = rows * columns * 1176;
  return {
    pixels: Float32Array.from({ length: count }, (_, i) => hash(index * count + i) / 2 ** 23 - 1),
    grid: [1, rows, columns],
  };
}

/** Prompt `index` of P tokens, the placeholders of its pictures first. */
export function promptOf(index, { P, pictures = 0, grid }, config) {
  const vocabulary = (config.text_config ?? config).vocab_size;
  const images = Array.from({ length: pictures }, (_, i) => picture(index * pictures + i, grid));
  const runs = images.flatMap(() => [
    config.vision_start_token_id,
    ...new Array((grid[0] * grid[1]) / 4).fill(config.image_token_id),
    config.vision_end_token_id,
  ]);
  const text = tokensFrom(index * P, P - runs.length, vocabulary, firstTextId(config));
  return { promptTokens: Int32Array.from([...runs, ...text]), images };
}

/** G completions of C tokens, whose advantages are 1 and -1 in turn. */
export function completionsOf(index, { C, G }, config) {
  const vocabulary = (config.text_config ?? config).vocab_size;
  return Array.from({ length: G }, (_, i) => ({
    tokens: tokensFrom(1_000_000 + (index * G + i) * C, C, vocabulary, firstTextId(config)),
    advantage: i % 2 === 0 ? 1 : -1,
  }));
}

/** Pair `index`: a prompt and two answers of `low` to `high` tokens each; an answer ends with the reward token. */
export function pairOf(index, { low, high }, config) {
  const length = (i) => low + (hash(3 * index + i) % (high - low + 1));
  const draw = (i, count) => tokensFrom((3 * index + i) * high, count, config.vocab_size);
  const answer = (i) => Int32Array.from([...draw(i, length(i) - 1), rewardToken]);
  return { prompt: draw(0, length(0)), answers: [answer(1), answer(2)] };
}
