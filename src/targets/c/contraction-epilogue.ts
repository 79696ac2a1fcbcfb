import type { ContractionDType, Epilogue } from "./contraction-types.js";

const pointers = { f32: "thimble_float_alias", bf16: "thimble_half_alias", f16: "thimble_half_alias" } as const;

/** What a default epilogue does to a sum before storing it. */
export interface StoreOptions {
  /** Multiplies the sum by the f32 whose bits are the fourth word. */
  readonly scaled?: boolean;
  /** Adds the value that the output holds, after scaling. */
  readonly accumulate?: boolean;
}

/**
 * Stores the sums as `dtype`. Words: address of the output, its row stride and batch stride in elements, and with
 * `scaled` the bits of an f32.
 */
export function storeEpilogue(dtype: ContractionDType, options: StoreOptions = {}): Epilogue {
  const { scaled = false, accumulate = false } = options;
  const name = `store_${dtype}${scaled ? "_scaled" : ""}${accumulate ? "_added" : ""}_tile`;
  const source = String.raw`
INLINE void ${name}(vf sums, int64_t batch, int64_t row, int64_t column, int n, const int64_t* words) {
  ${pointers[dtype]}* p = (${pointers[dtype]}*)words[0] + batch * words[2] + row * words[1] + column;
${scaled ? "  sums *= splat_f(bitcast_i_to_f(splat_i((int32_t)words[3]))[0]);\n" : ""}${accumulate ? `  sums += load_${dtype}_n(p, n);\n` : ""}  store_${dtype}_n(p, sums, n);
}`;
  return { name, source, words: scaled ? 4 : 3 };
}
