// A reward of one's own, asynchronous: a second model looks at each picture alone, and a rationale is worth the share of
// cells it names as that model does. It needs no label of what the pictures show.
import { Policy } from 'gavel-rl';
import { readRationale } from './sound.mjs';

/** A stage that writes the weights of its moment into the run's folder. Recipes may be this short. */
export const keepWeights = {
  kind: 'keep-weights',
  config: {},
  run: async (context) => {
    const folder = context.run.file(context.stage);
    await context.policy.model.exportHf(folder);
    return { folder };
  },
};

/** A frozen model in the same engine that says what a picture shows. */
export class Eyes {
  #policy;
  #prompt;
  #seen = new WeakMap();
  #waiting = [];

  constructor(policy, prompt) {
    this.#policy = policy;
    this.#prompt = prompt;
  }

  static async open(engine, folder, prompt) {
    const model = await engine.loadModel(folder, { dtype: 'fp32' });
    return new Eyes(await Policy.open(model, folder, { threads: 1 }), prompt);
  }

  /** The words of a picture's cells. What is asked in one turn of the event loop is drawn as one batch, and kept. */
  look(picture) {
    const known = this.#seen.get(picture);
    if (known !== undefined) return known;
    if (this.#waiting.length === 0) setTimeout(() => void this.#draw(this.#waiting.splice(0)));
    const words = new Promise((resolve, reject) => this.#waiting.push({ picture, resolve, reject }));
    this.#seen.set(picture, words);
    return words;
  }

  async #draw(waiting) {
    try {
      const { signal } = new AbortController();
      const rows = waiting.map(({ picture }, i) => ({ id: String(i), prompt: this.#prompt, images: [picture] }));
      const options = { count: 1, seed: 0, temperature: 0, maxNewTokens: 8, signal };
      await this.#policy.draw(await this.#policy.encode(rows, signal), options, ({ item, text }) =>
        waiting[item].resolve(text.trim().split(/\s+/)),
      );
    } catch (error) {
      for (const { reject } of waiting) reject(error);
    }
  }

  /** The reward: 0 to 1. */
  reward = async ({ row, completion }) => {
    const said = readRationale(completion);
    if (said === null) return 0;
    const seen = await Promise.all(row.images.map((picture) => this.look(picture)));
    const agrees = said.flatMap(({ words }, picture) => words.map((word, cell) => word === seen[picture][cell]));
    return agrees.filter(Boolean).length / agrees.length;
  };

  /** Frees its data threads; the engine frees the model. */
  [Symbol.asyncDispose]() {
    return this.#policy[Symbol.asyncDispose]();
  }
}
