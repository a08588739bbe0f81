// Writes seeded random weights of one benchmark model as a Hugging Face folder: what our programs and the peers' load.
import { createEngine } from 'gavel-rl';
import { models } from './shapes.mjs';

/** Exports `name` (a key of models) into `folder`, in fp32. */
export async function exportModel(name, folder) {
  const engine = await createEngine({ threads: 1 });
  try {
    const model = await engine.createModel(models[name], { seed: 1 });
    await model.exportHf(folder);
  } finally {
    await engine.dispose();
  }
}
