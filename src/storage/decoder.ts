/** Decoders as loops, derived from a format's one expression. */
import { invariant, must } from "../errors.js";
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";
import { hoistInvariants, substituteArguments } from "../ir/scalar-fold.js";
import { renderSteps } from "../ir/scalar-graph.js";
import { functionFromSource, javascriptSyntax } from "../ir/scalar-javascript.js";
import type { StorageFormat } from "./format.js";
import type { Plane } from "./planes.js";
import { layOutPlanes } from "./planes.js";

/**
 * A block's decoder as one loop a run. In `bodies[run]` argument 0 is the lane (i32) and argument `1 + i` is
 * `invariants[i]`, computed once a block.
 */
export interface DecoderLoops {
  readonly invariants: readonly Scalar[];
  readonly bodies: readonly Scalar[];
}

export function decoderLoops(format: StorageFormat): DecoderLoops {
  const lane = s.argument(0, "i32");
  const runs = Array.from({ length: format.runs.count }, (_, run) =>
    substituteArguments(format.decodeRun(s.i32(run), lane), new Map()),
  );
  return hoistInvariants(runs, 0, 1);
}

/** Decodes whole packed blocks (with planes: a whole tensor) into `out`, which must hold exactly their elements. */
export type Decoder = (packed: Uint8Array, out: Float32Array) => void;

const compiled = new Map<string, Decoder>();

/** A fast JavaScript decoder generated from the format's expression. */
export function compileDecoder(format: StorageFormat): Decoder {
  const known = compiled.get(format.id);
  if (known !== undefined) return known;
  const decoder = format.planes === undefined ? blockDecoder(format) : planeDecoder(format, format.planes);
  compiled.set(format.id, decoder);
  return decoder;
}

function blockDecoder(format: StorageFormat): Decoder {
  const decodeBlocks = functionFromSource(["packed", "out", "blocks"], javascriptSource(format)) as (
    packed: Uint8Array,
    out: Float32Array,
    blocks: number,
  ) => void;
  const { elements, bytes } = format.block;
  return (packed, out) => {
    const blocks = packed.length / bytes;
    invariant(Number.isInteger(blocks) && out.length === blocks * elements, `${format.id} is decoded in whole blocks`);
    decodeBlocks(packed, out, blocks);
  };
}

function planeDecoder(format: StorageFormat, planes: readonly Plane[]): Decoder {
  const decode = functionFromSource(["packed", "out", "offsets"], planeSource(format, planes)) as (
    packed: Uint8Array,
    out: Float32Array,
    offsets: readonly number[],
  ) => void;
  return (packed, out) => {
    const { offsets, bytes } = layOutPlanes(planes, out.length);
    invariant(packed.length === bytes, `${format.id} is decoded as a whole tensor`);
    decode(packed, out, offsets);
  };
}

function javascriptSource(format: StorageFormat): string {
  const { invariants, bodies } = decoderLoops(format);
  const { length } = format.runs;
  const byte = (offset: string): string => `packed[base + ${offset}]`;
  const hoisted = renderSteps(invariants, javascriptSyntax([], byte), "h");
  const names = ["lane", ...hoisted.results];
  const loops = bodies.map((body, run) => {
    const { statements, results } = renderSteps([body], javascriptSyntax(names, byte), "t");
    const inner = statements.map((statement) => statement.text).join(" ");
    const store = `out[at + ${run * length} + lane] = ${must(results[0], "value")};`;
    return `for (let lane = 0; lane < ${length}; lane++) { ${inner} ${store} }`;
  });
  return `let base = 0, at = 0;
for (let block = 0; block < blocks; block++) {
${[...hoisted.statements.map((statement) => statement.text), ...loops].join("\n")}
base += ${format.block.bytes};
at += ${format.block.elements};
}`;
}

/** One block at a time, the last one as far as there are elements. */
function planeSource(format: StorageFormat, planes: readonly Plane[]): string {
  const { invariants, bodies } = decoderLoops(format);
  const byte = (offset: string, plane: number): string => `packed[base${plane} + ${offset}]`;
  const hoisted = renderSteps(invariants, javascriptSyntax([], byte), "h");
  const { statements, results } = renderSteps(bodies, javascriptSyntax(["lane", ...hoisted.results], byte), "t");
  const bases = planes.map(({ elements, bytes }, plane) =>
    elements === Infinity
      ? `const base${plane} = offsets[${plane}];`
      : `const base${plane} = offsets[${plane}] + Math.floor(at / ${elements}) * ${bytes};`,
  );
  return `for (let at = 0; at < out.length; at += ${format.block.elements}) {
const lanes = Math.min(${format.block.elements}, out.length - at);
${[...bases, ...hoisted.statements.map((statement) => statement.text)].join("\n")}
for (let lane = 0; lane < lanes; lane++) {
${[...statements.map((statement) => statement.text), `out[at + lane] = ${must(results[0], "value")};`].join("\n")}
}
}`;
}
