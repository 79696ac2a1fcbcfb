// Made by scripts/docs.ts from the folders beside this file. Do not edit.
import { adalora } from "./adalora/index.js";
import { coat } from "./coat/index.js";
import { colm } from "./colm/index.js";
import { dept } from "./dept/index.js";
import { full } from "./full/index.js";
import { galore } from "./galore/index.js";
import { ist } from "./ist/index.js";
import { lisa } from "./lisa/index.js";
import { lora } from "./lora/index.js";
import { lst } from "./lst/index.js";
import { meft } from "./meft/index.js";
import { mezo } from "./mezo/index.js";
import { neuroada } from "./neuroada/index.js";
import { paca } from "./paca/index.js";
import { peqa } from "./peqa/index.js";
import { qlora } from "./qlora/index.js";
import { spiel } from "./spiel/index.js";
import { wtaCrs } from "./wta-crs/index.js";
import { zo2 } from "./zo2/index.js";
import type { Method } from "./types.js";

/** Every method, by name. */
export const methods: readonly Method[] = [
  adalora,
  coat,
  colm,
  dept,
  full,
  galore,
  ist,
  lisa,
  lora,
  lst,
  meft,
  mezo,
  neuroada,
  paca,
  peqa,
  qlora,
  spiel,
  wtaCrs,
  zo2,
];
