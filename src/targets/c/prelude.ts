import { preludeArithmetic } from "./prelude-arithmetic.js";
import { preludeMath } from "./prelude-math.js";
import { preludeMemory } from "./prelude-memory.js";
import { preludeTypes } from "./prelude-types.js";

/**
 * C source that comes first in every translation unit of generated kernels: machine features, vector types of 16
 * lanes (`vf`, `vi`, `vu`), loads, stores and conversions, lane arithmetic, `exp_f`, `log_f`, the kernel ABI
 * (`Context`, `Kernel`, `barrier`, `share`).
 *
 * It is meant for `gcc|clang -O3 -march=native -ffp-contract=off -fno-math-errno -std=gnu11`; nothing in it calls the
 * C library. All results are the same to the bit on every machine.
 */
export const prelude: string = [
  "#ifndef THIMBLE_PRELUDE\n#define THIMBLE_PRELUDE",
  preludeTypes,
  preludeArithmetic,
  preludeMemory,
  preludeMath,
  "#endif\n",
].join("\n");
