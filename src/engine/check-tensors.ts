/** Whether a checkpoint's headers hold the tensors of its config, asked of a model whose memory is reserved and never touched. */
import { modelSpec, storedDtype, type JsonObject } from './model-config.js';
import { nativeModule } from './native-module.js';
import type { TensorIndex } from './safetensors.js';
import { matchTensors } from './tensor-names.js';

/**
 * Reads no weight. Errors: 'corrupt_checkpoint' naming tensors that are missing, unexpected or of another shape,
 * 'binary_missing', and what the engine says of the config: 'invalid_config', 'unsupported'.
 */
export async function checkTensors(config: JsonObject, index: TensorIndex, folder: string): Promise<void> {
  const engine = nativeModule().createEngine({ threads: 1 });
  try {
    const model = await engine.createModel({ ...modelSpec(config, storedDtype(config)), planning: true });
    matchTensors(model.tensors(), index, folder, config);
  } finally {
    await engine.dispose();
  }
}
