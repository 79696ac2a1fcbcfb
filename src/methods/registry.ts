import { adalora } from "./adalora/index.js";
import { full } from "./full/index.js";
import { galore } from "./galore/index.js";
import { lisa } from "./lisa/index.js";
import { lora } from "./lora/index.js";
import { mezo } from "./mezo/index.js";
import { qlora } from "./qlora/index.js";
import { paca } from "./paca/index.js";
import { wtaCrs } from "./wta-crs/index.js";
import { peqa } from "./peqa/index.js";
import type { Method } from "./types.js";

/** Every method, one line each. */
export const methods: readonly Method[] = [
  full, //
  lora,
  adalora,
  qlora,
  peqa,
  lisa,
  galore,
  paca,
  mezo,
  wtaCrs,
];
