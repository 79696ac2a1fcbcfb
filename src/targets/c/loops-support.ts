/** C that generated loops need beside the prelude. It guards itself, so every kernel's source can begin with it. */
const elementTypes: readonly (readonly [string, string, string, string])[] = [
  ["f32", "float", "f", "*(const thimble_float_alias*)p"],
  ["bf16", "float", "f", "bf16_to_f32(*(const thimble_half_alias*)p)"],
  ["f16", "float", "f", "f16_to_f32(*(const thimble_half_alias*)p)"],
  ["i32", "int32_t", "i", "(int32_t)*(const thimble_word_alias*)p"],
  ["u32", "uint32_t", "u", "*(const thimble_word_alias*)p"],
  ["u8", "uint32_t", "u", "*(const uint8_t*)p"],
  ["bool", "int32_t", "i", "*(const uint8_t*)p ? -1 : 0"],
];

const accesses = elementTypes.map(
  ([name, element, letter, read]) => `INLINE ${element} get_${name}(const char* p) { return ${read}; }
INLINE v${letter} strided_${name}(const char* p, int64_t bytes, int n) {
  thimble_lanes lanes = {.u = splat_u(0u)};
  for (int l = 0; l < n; l++) lanes.lane_${letter}[l] = get_${name}(p + l * bytes);
  return lanes.${letter};
}`,
);

export const loopsSupport = `#ifndef THIMBLE_LOOPS
#define THIMBLE_LOOPS
${accesses.join("\n")}
/* A row number from a tensor; one outside the table stands for row 0. */
INLINE int64_t row_of(int32_t id, int64_t rows) { return id >= 0 && id < rows ? id : 0; }
/* first, first + step, first + 2 step, ... */
INLINE vi counting(int64_t first, int64_t step) {
  return (vi)(splat_u((uint32_t)first) + (vu)lanes_iota() * splat_u((uint32_t)step));
}
INLINE uint32_t sum_lanes_u(vu v) {
  thimble_lanes lanes = {.u = v};
  uint32_t sum = 0;
  for (int l = 0; l < 16; l++) sum += lanes.lane_u[l];
  return sum;
}
INLINE int32_t sum_lanes_i(vi v) { return (int32_t)sum_lanes_u((vu)v); }
INLINE int32_t max_lanes_i(vi v) {
  int32_t most = v[0];
  for (int l = 1; l < 16; l++) most = v[l] > most ? v[l] : most;
  return most;
}
INLINE uint32_t max_lanes_u(vu v) {
  uint32_t most = v[0];
  for (int l = 1; l < 16; l++) most = v[l] > most ? v[l] : most;
  return most;
}
#endif
`;
