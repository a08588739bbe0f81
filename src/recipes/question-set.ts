/** Questions as an evaluation set, asked as R3V's prompts ask, and the judge that marks them by their final answer. */
import type { Dataset } from '../data/dataset.js';
import { accuracyReward } from '../rewards/accuracy.js';
import { extractAnswer, type AnswerForm } from '../rewards/answer-forms.js';
import { verifierByName, type VerifierName } from '../rewards/verifier.js';
import type { EvaluationSet } from './evaluate.js';
import type { Judge } from './judge.js';
import { r3vPrompts, type R3vPrompts } from './r3v-prompts.js';

export interface QuestionSetOptions {
  prompts?: R3vPrompts;
  /**
   * rationale: with chain of thought. direct: for the answer alone. both: with chain of thought, and the answer alone beside
   * it (`directAccuracy`). Default: rationale.
   */
  ask?: 'rationale' | 'direct' | 'both';
}

/** Zero-shot chain of thought and zero-shot direct answers are evaluations of this set. Rows with `meta.unseen` stand apart. */
export function questionSet(data: Dataset, options: QuestionSetOptions = {}): EvaluationSet {
  const { prompts = r3vPrompts(), ask = 'rationale' } = options;
  return {
    name: data.name,
    size: data.size,
    // The same questions asked in another way are other prompts under the same ids.
    fingerprint: `${data.fingerprint} ${ask}`,
    item: async (index) => {
      const question = await data.row(index);
      const unseen = question.meta?.['unseen'] === true;
      if (ask === 'direct') return { row: prompts.direct(question), unseen };
      const row = prompts.rationale(question);
      return ask === 'both' ? { row, direct: prompts.direct(question), unseen } : { row, unseen };
    },
  };
}

/** A judge by the final answer alone: reward 1 or 0, and format means that there is an answer in `form`. */
export function answerJudge(verifier: VerifierName, form: AnswerForm = 'tags'): Judge {
  const verify = verifierByName(verifier, form);
  return {
    rewards: [{ name: 'accuracy', reward: accuracyReward(verify) }],
    verifier: verify,
    hasFormat: (completion) => extractAnswer(completion, form) !== null,
  };
}
