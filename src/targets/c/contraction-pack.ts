import { tileRows } from "./contraction-micro.js";
import { once } from "./contraction-name.js";
import { isDirect, readerName, readers } from "./contraction-operand.js";
import type { ContractionSpec, Operand } from "./contraction-types.js";

type Compute = ContractionSpec["compute"];

/** Where an operand's k runs: along its rows ([x, K]) or across them ([K, x]). */
export type Layout = "along" | "across";

/** How stored values are reached: as units where they lie, and the bytes of one value, 0 where packed in blocks. */
interface Access {
  readonly direct: boolean;
  readonly bytes: number;
  /** The reader of values without a call, where units are values. */
  readonly inline?: "fill" | "rounded";
}

/** Panels of an operand [x, K], by 16x16 transposition: [panel][unit of k][width]. */
function panelsAlong(name: string, unit: string, { direct, bytes }: Access): string {
  const fetch = (distance: string): string =>
    bytes === 0
      ? ""
      : `      const char* next = base + element * ${bytes} + ${distance};
      for (int64_t byte = 0; byte < count * ${bytes}; byte += 64) __builtin_prefetch(next + byte);\n`;
  return String.raw`
static void ${name}_along_panels(const char* base, int64_t offset, int64_t stride, int64_t first, int64_t columns, int64_t last,
                                 int64_t k0, int64_t k1, int64_t member, int64_t members, thimble_word_alias* out) {
  int64_t padded = (columns + 15) / 16 * 16, total = (k1 - k0 + ${unit} - 1) / ${unit}, parts = (k1 - k0 + 255) / 256;
  int64_t begin, end;
  share(padded / 16 * parts, 1, member, members, &begin, &end);
  for (int64_t item = begin; item < end; item++) {
    int64_t c = item / parts * 16, k = k0 + item % parts * 256, count = smaller(256, k1 - k);
    int64_t panel = c / PANEL * PANEL, width = smaller(PANEL, padded - panel);
    thimble_word_alias* lines = out + panel * total + (k - k0) / ${unit} * width + (c - panel);
    const thimble_word_alias* rows[16];
${direct ? "" : `    uint32_t words[16][256 / ${unit}] __attribute__((aligned(64)));`}
    for (int i = 0; i < 16; i++) {
      int64_t element = offset + smaller(first + c + i, last - 1) * stride + k;
${fetch(`${bytes} * (k + 256 < k1 ? 256 : 16 * stride - (k - k0))`)}${
    direct
      ? `      rows[i] = (const thimble_word_alias*)base + element;`
      : `      rows[i] = words[i];\n      ${name}_units(base, element, count, words[i]);`
  }
    }
    thimble_pack_rows(rows, (count + ${unit} - 1) / ${unit}, lines, width);
  }
}`;
}

/** Rows of an operand [x, K] as units, `length` words apart. */
function rowsAlong(name: string, unit: string): string {
  return String.raw`
static void ${name}_along_rows(const char* base, int64_t element, int64_t stride, int rows, int64_t depth,
                               thimble_word_alias* out, int64_t length) {
  for (int i = 0; i < rows; i++)
    for (int64_t k = 0; k < depth; k += 256)
      ${name}_units(base, element + i * stride + k, smaller(256, depth - k), out + i * length + k / ${unit});
}`;
}

/** Panels of an operand [K, x], by copying stretches of its rows. */
function panelsAcross(name: string, unit: string, access: Access): string {
  const { direct, bytes } = access;
  const ahead = bytes === 0 ? "" : fetchAhead(unit, bytes, "columns");
  return String.raw`
static void ${name}_across_panels(const char* base, int64_t offset, int64_t stride, int64_t first, int64_t columns, int64_t last,
                                  int64_t k0, int64_t k1, int64_t member, int64_t members, thimble_word_alias* out) {
  int64_t padded = (columns + 15) / 16 * 16, total = (k1 - k0 + ${unit} - 1) / ${unit}, begin, end;
  (void)last;
  share(total, 1, member, members, &begin, &end);
  for (int64_t u = begin; u < end; u++) {
    int64_t k = k0 + u * ${unit}, element = offset + k * stride + first;
${ahead}    for (int64_t c = 0; c < columns; c += PANEL) {
      int64_t count = smaller(PANEL, columns - c), width = smaller(PANEL, padded - c);
      thimble_word_alias* line = out + c * total + u * width;
${
  direct
    ? `      thimble_copy_words((const thimble_word_alias*)base + element + c, count, width, line);`
    : String.raw`      uint32_t words[PANEL] __attribute__((aligned(64)));
      thimble_word_alias* target = count == width ? line : words;
      ${columns(name, unit, access, "element + c", "k1 - k", "target")}
      if (count < width) thimble_copy_words(words, count, width, line);`
}
    }
  }
}`;
}

/** Strips of 6 columns of an operand [K, x]: [strip][unit of k][6], strips "pitch" words apart. */
function stripsAcross(name: string, unit: string, access: Access): string {
  const chunk = 240;
  const ahead = access.bytes === 0 ? "" : fetchAhead(unit, access.bytes, "count");
  return String.raw`
static void ${name}_across_strips(const char* base, int64_t offset, int64_t stride, int64_t first, int64_t columns, int64_t depth,
                                  int64_t member, int64_t members, thimble_word_alias* out, int64_t pitch) {
  int64_t total = (depth + ${unit} - 1) / ${unit}, begin, end;
  share(total, 8, member, members, &begin, &end);
  for (int64_t m = 0; m < columns; m += ${chunk}) {
    int64_t count = smaller(${chunk}, columns - m);
    for (int64_t u = begin; u < end; u++) {
      int64_t element = offset + u * ${unit} * stride + first + m, i = 0;
      thimble_word_alias* line = out + m / ${tileRows} * pitch + u * ${tileRows};
${ahead}${
    access.direct
      ? `      const thimble_word_alias* words = (const thimble_word_alias*)base + element;`
      : String.raw`      uint32_t words[256] __attribute__((aligned(64)));
      ${columns(name, unit, access, "element", `depth - u * ${unit}`, "words")}`
  }
      /* The two words too many are those of the next k, which come next. */
      if (u + 1 < end)
        for (; i + 8 <= count; i += ${tileRows}, line += pitch) __builtin_memcpy((void*)line, (const void*)(words + i), 32);
      for (; i + ${tileRows} <= count; i += ${tileRows}, line += pitch) __builtin_memcpy((void*)line, (const void*)(words + i), ${tileRows * 4});
      if (i < count)
        for (int j = 0; j < ${tileRows}; j++) line[j] = i + j < count ? words[i + j] : 0;
    }
  }
}`;
}

/** Asks for the values of the same columns 8 units of k further on. */
function fetchAhead(unit: string, bytes: number, count: string): string {
  return `      for (int64_t byte = 0; byte < ${count} * ${bytes}; byte += 64) __builtin_prefetch(base + (element + 8 * ${unit} * stride) * ${bytes} + byte);\n`;
}

/** Reads "count" values (at most 256) of one k into units at "out". */
function columns(name: string, unit: string, { inline }: Access, element: string, left: string, out: string): string {
  const call = `${name}_columns(base, ${element}, stride, smaller(${unit}, ${left}), count, ${out});`;
  if (inline === undefined) return call;
  return `if (${unit} == 1) ${name}_${inline}(base, ${element}, count, (float*)${out});\n      else ${call}`;
}

export function layoutOf(side: "a" | "b", { transposed }: Operand): Layout {
  return (side === "a") === transposed ? "across" : "along";
}

/** The C constant of type `thimble_operand` that {@link operandSource} defines. */
export function operandName(operand: Operand, layout: Layout, compute: Compute): string {
  return `${readerName(operand, compute)}_${layout}`;
}

function accessOf({ dtype, decoder }: Operand, compute: Compute): Access {
  const direct = isDirect({ dtype, ...(decoder === undefined ? {} : { decoder }) }, compute);
  if (decoder !== undefined) return { direct, bytes: 0 };
  return { direct, bytes: dtype === "f32" ? 4 : 2, inline: compute === "f32" || dtype === "bf16" ? "fill" : "rounded" };
}

/** How the driver gets at an operand of this storage and layout; equal operands of several kernels share it. */
export function operandSource(operand: Operand, layout: Layout, compute: Compute): string {
  const reader = readerName(operand, compute);
  const name = operandName(operand, layout, compute);
  const unit = `UNIT_${compute}`;
  const direct = isDirect(operand, compute);
  const access = accessOf(operand, compute);
  const pairs = operand.decoder === undefined && operand.dtype === "bf16" && compute === "bf16" ? `${unit} == 2` : "0";
  const functions =
    layout === "along"
      ? panelsAlong(reader, unit, access) + rowsAlong(reader, unit)
      : panelsAcross(reader, unit, access) + stripsAcross(reader, unit, access);
  const members =
    layout === "along"
      ? `.panels = ${name}_panels, .rows = ${name}_rows, .values = ${reader}_values`
      : `.panels = ${name}_panels, .strips = ${name}_strips`;
  const constant = `static const thimble_operand ${name} = {.across = ${layout === "across" ? 1 : 0}, .direct = ${direct ? 1 : 0}, .pairs = ${pairs}, .elements = ${operand.decoder?.elements ?? 1}, .bytes = ${operand.decoder?.bytes ?? access.bytes}, .plain = ${access.bytes}, ${members}};`;
  return [readers(operand, compute), once(name, `${functions}\n${constant}`)].join("\n");
}
