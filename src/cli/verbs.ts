import type { Verb } from "./verb.js";
import { chatVerb } from "./verbs/chat.js";
import { compareVerb } from "./verbs/compare.js";
import { configVerb } from "./verbs/config.js";
import { dataVerb } from "./verbs/data.js";
import { demoVerb } from "./verbs/demo.js";
import { doctorVerb } from "./verbs/doctor.js";
import { evalVerb } from "./verbs/eval.js";
import { explainVerb } from "./verbs/explain.js";
import { exportVerb } from "./verbs/export.js";
import { generateVerb } from "./verbs/generate.js";
import { mergeVerb } from "./verbs/merge.js";
import { methodsVerb } from "./verbs/methods.js";
import { planVerb } from "./verbs/plan.js";
import { replayVerb } from "./verbs/replay.js";
import { trainVerb } from "./verbs/train.js";

/** Every command, in the order of the help text. */
export const verbs: readonly Verb[] = [
  ...[demoVerb, trainVerb, planVerb, compareVerb, evalVerb, generateVerb, chatVerb],
  ...[mergeVerb, exportVerb, replayVerb, dataVerb, methodsVerb, explainVerb, doctorVerb, configVerb],
];
