/** Which part of a model a tensor belongs to, by its name in any spelling. */

export const modelParts = ['embedding', 'decoder', 'head', 'vision', 'projector', 'adapter'] as const;
export type ModelPart = (typeof modelParts)[number];

/** The part a tensor belongs to, by its name in any spelling. */
export function partOf(name: string): ModelPart {
  if (/(^|\.)lora_[AB](\.|$)|lora_embedding|trainable_tokens/.test(name)) return 'adapter';
  if (/multi_modal_projector|(^|\.)image_newline$|(^|\.)visual\.(merger|deepstack_merger_list)\./.test(name))
    return 'projector';
  if (/(^|\.)(visual|vision_tower|vision_model)\./.test(name)) return 'vision';
  if (/(^|\.)(lm_head|reward_head)\./.test(name) || name === 'output.weight') return 'head';
  if (/(^|\.)(embed_tokens|token_embd)\./.test(name)) return 'embedding';
  return 'decoder';
}
