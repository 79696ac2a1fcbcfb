import { full } from "./full/index.js";
import { lora } from "./lora/index.js";
import type { Method } from "./types.js";

/** Every method, one line each. */
export const methods: readonly Method[] = [
  full, //
  lora,
];
