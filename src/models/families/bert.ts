import { encoderConfig } from "../encoder-config.js";
import { encoderFamily } from "../encoder-family.js";
import { encoderModel } from "../encoder.js";

/** BERT, and what has its architecture: MiniLM, sentence encoders, most small encoders. */
export const bert = encoderFamily({
  id: "bert",
  modelTypes: ["bert"],
  prefix: "bert.",
  definition: (json) =>
    encoderModel(encoderConfig({ family: "bert", root: "bert", head: "pooler", offsetPositions: false }, json)),
});
