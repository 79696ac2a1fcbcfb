import { encoderConfig } from "../encoder-config.js";
import { encoderFamily } from "../encoder-family.js";
import { encoderModel } from "../encoder.js";

/** RoBERTa (Liu et al., arXiv 1907.11692), XLM-RoBERTa and CamemBERT: BERT's blocks under another head. */
export const roberta = encoderFamily({
  id: "roberta",
  modelTypes: ["roberta", "xlm-roberta", "camembert"],
  prefix: "roberta.",
  definition: (json) =>
    encoderModel(
      encoderConfig({ family: "roberta", root: "roberta", head: "two-layers", offsetPositions: true }, json),
    ),
});
