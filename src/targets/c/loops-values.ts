/** C for single values of generated loops: 16 lanes each, all equal where no loop over lanes is around. */
import { must } from "../../errors.js";
import { sizeOf } from "../../ir/dtype.js";
import type { ScalarType } from "../../ir/scalar.js";
import { randomBitsOp } from "../../ops/random.js";
import { storageFormat } from "../../storage/registry.js";
import type { Linear, LoopVariable } from "../loops/linear.js";
import type { ApplyValue, Guard, LoadValue, MemoryType, Source, Value } from "../loops/value.js";
import type { Store } from "../loops/nest.js";
import { operandsOf, valuesBelow } from "../loops/value.js";
import type { Names } from "./loops-names.js";
import { contentHash, laneAccess, vectorType } from "./loops-names.js";
import { noiseSupport, noiseSupportName } from "./loops-noise.js";
import { elementDecoderC } from "./plane-decoder.js";

/** The vector being worked on: lanes `variable`, `variable + 1`, ..., all 16 or the first `n`. */
export interface Lanes {
  readonly variable: LoopVariable;
  readonly partial: boolean;
}

const letters: Readonly<Record<ScalarType, string>> = { f32: "f", i32: "i", u32: "u", bool: "i" };
const zero: Readonly<Record<ScalarType, string>> = {
  f32: "splat_f(0.0f)",
  i32: "splat_i(0)",
  u32: "splat_u(0u)",
  bool: "splat_i(0)",
};

/** Lane-wise names of a C `for` over single lanes. */
const single = { name: "at", number: "l" };

export class ValueRenderer {
  constructor(readonly names: Names) {}

  /** Statements that define the value's variable. */
  compute(value: Value, lanes: Lanes | undefined): string[] {
    const name = this.names.value(value);
    const define = (code: string): string[] => [`const ${vectorType(value)} ${name} = ${code};`];
    switch (value.kind) {
      case "load":
        return this.#load(value, name, lanes);
      case "index":
        return this.#index(value.index, name, value.type, lanes);
      case "inside": {
        const index = this.#index(value.guard.index, `${name}_index`, "i32", lanes);
        const size = this.names.size(value.guard.size, `size of ${name}`);
        return [...index, ...define(`(${name}_index >= splat_i(0)) & (${name}_index < splat_i((int32_t)${size}))`)];
      }
      case "apply": {
        const words = this.#noise(value, name, lanes);
        if (words !== undefined) return words;
        const operands = value.operands.map((operand) => this.names.value(operand));
        const { statements, result } = this.names.expression(value.expression, operands, name);
        return result === name ? statements : [...statements, ...define(result)];
      }
      case "round": {
        const operand = this.names.value(value.operand);
        return define(
          value.to === "bf16" ? `round_bf16(${operand})` : `thimble_expand_f16(thimble_shrink_f16(${operand}))`,
        );
      }
      default:
        return [];
    }
  }

  /** Random words of neighbouring elements, from a block that outlives the vector; undefined for any other value. */
  #noise({ name: kind, operands }: ApplyValue, name: string, lanes: Lanes | undefined): string[] | undefined {
    const place = operands.at(-1);
    const scalars = operands.slice(0, -1);
    if (kind !== randomBitsOp.name || place?.kind !== "index" || lanes === undefined) return undefined;
    const access = laneAccess(place.index, lanes.variable);
    const fixed = scalars.every((operand) => operand.depends.size === 0);
    if (!fixed || access.kind !== "affine" || access.step !== 1) return undefined;
    const block = `${name}_block`;
    const declaration = `thimble_noise_block ${block} = {.block = -1};`;
    if (!this.names.locals.includes(declaration)) this.names.locals.push(declaration);
    this.names.functions.set(noiseSupportName, noiseSupport);
    const words = scalars.map((operand) => this.names.value(operand));
    const call = `thimble_noise(&${block}, ${words.join(", ")}, ${this.names.index(place.index)})`;
    return [`(void)${this.names.value(place)};`, `const vu ${name} = ${call};`];
  }

  #load(load: LoadValue, name: string, lanes: Lanes | undefined): string[] {
    const lane = lanes?.variable;
    const access = laneAccess(load.offset, lane);
    const guarded = load.guards.some((guard) => laneAccess(guard.index, lane).kind !== "uniform");
    const type = vectorType(load);
    if (guarded || access.kind === "irregular" || (access.kind === "affine" && typeof load.memory !== "string")) {
      return this.#eachLane(load, name, must(lanes, "lanes"));
    }
    const conditions = this.#conditions(load.guards);
    const code = this.#vector(load, lanes);
    const safe = conditions === "" ? code : `${conditions} ? ${code} : ${zero[load.type]}`;
    return [`const ${type} ${name} = ${safe};`];
  }

  #vector(load: LoadValue, lanes: Lanes | undefined): string {
    const { memory, offset } = load;
    const access = laneAccess(offset, lanes?.variable);
    if (typeof memory !== "string" || access.kind !== "affine") {
      return `splat_${letters[load.type]}(${this.#element(load, this.names.index(offset))})`;
    }
    const address = this.address(load.source, memory, this.names.index(offset));
    if (access.step === 1)
      return lanes?.partial === true ? `load_${memory}_n(${address}, n)` : `load_${memory}(${address})`;
    const step = access.step === -1 ? "-1" : this.names.size(access.step, `step ${access.step} of ${address}`);
    return `strided_${memory}(${address}, ${step} * ${sizeOf(memory)}, ${lanes?.partial === true ? "n" : "16"})`;
  }

  /** A load that goes lane by lane. */
  #eachLane(load: LoadValue, name: string, lanes: Lanes): string[] {
    const lane = { variable: lanes.variable, ...single };
    const conditions = this.#conditions(load.guards, lane);
    const read = this.#element(load, this.names.index(load.offset, lane));
    const store = `lanes.lane_${letters[load.type]}[l] = ${read};`;
    const body = conditions === "" ? store : `if (${conditions}) ${store}`;
    return this.#laneLoop(name, load.type, lanes, body);
  }

  #laneLoop(name: string, type: ScalarType, lanes: Lanes, body: string): string[] {
    const letter = letters[type];
    const start = this.names.variable(lanes.variable);
    return [
      `v${letter} ${name};`,
      "{",
      `  thimble_lanes lanes = {.${letter} = ${zero[type]}};`,
      `  for (int l = 0; l < ${lanes.partial ? "n" : "16"}; l++) {`,
      `    const int64_t ${single.name} = ${start} + l;`,
      `    (void)${single.name};`,
      `    ${body}`,
      "  }",
      `  ${name} = lanes.${letter};`,
      "}",
    ];
  }

  #index(index: Linear, name: string, type: ScalarType, lanes: Lanes | undefined): string[] {
    const access = laneAccess(index, lanes?.variable);
    const vector = `v${letters[type]}`;
    if (access.kind === "irregular") {
      const { variable } = must(lanes, "lanes");
      const code = this.names.index(index, { variable, ...single });
      const element = type === "u32" ? "uint32_t" : "int32_t";
      const body = `lanes.lane_${letters[type]}[l] = (${element})(${code});`;
      return this.#laneLoop(name, type, must(lanes, "lanes"), body);
    }
    const code = this.names.index(index);
    if (access.kind === "uniform") {
      const element = type === "u32" ? "uint32_t" : "int32_t";
      return [`const ${vector} ${name} = splat_${letters[type]}((${element})(${code}));`];
    }
    const step = Math.abs(access.step) === 1 ? String(access.step) : this.names.size(access.step, `step of ${code}`);
    return [`const ${vector} ${name} = (${vector})counting(${code}, ${step});`];
  }

  #conditions(guards: readonly Guard[], lane?: { variable: LoopVariable; name: string; number: string }): string {
    return guards
      .map(({ index, size }) => {
        const code = this.names.index(index, lane);
        return `(uint64_t)(${code}) < (uint64_t)${this.names.size(size, `size ${size} of ${code}`)}`;
      })
      .join(" && ");
  }

  /** One element, as the C type of a lane. */
  #element(load: LoadValue, offset: string): string {
    const { memory } = load;
    if (typeof memory === "string") return `get_${memory}(${this.address(load.source, memory, offset)})`;
    return `${this.#decoder(memory.format)}((const uint8_t*)${this.base(load.source)}, ${offset})`;
  }

  base(source: Source): string {
    return source.kind === "workspace" ? "work" : `in${source.index}`;
  }

  address(source: Source, memory: MemoryType, offset: string): string {
    const bytes = typeof memory === "string" ? sizeOf(memory) : 1;
    return `${this.base(source)} + (${offset})${bytes === 1 ? "" : ` * ${bytes}`}`;
  }

  /** A function that decodes one element of a packed tensor. */
  #decoder(id: string): string {
    const { tables, body } = elementDecoderC(storageFormat(id));
    const text = `(const uint8_t* packed, int64_t at) {\n${body.map((line) => `  ${line}`).join("\n")}\n}\n`;
    const name = `element_${id.replaceAll("-", "_")}_${contentHash(text)}`;
    const guard = name.toUpperCase();
    const source = `${tables}static inline float ${name}${text}`;
    this.names.functions.set(name, `#ifndef ${guard}\n#define ${guard}\n${source}#endif\n`);
    return name;
  }

  store(store: Store, lanes: Lanes | undefined): string {
    const { value, memory, target } = store;
    const type = typeof memory === "string" ? memory : "f32";
    const base = target.kind === "workspace" ? "work" : `out${target.index}`;
    const bytes = sizeOf(type);
    const address = `${base} + (${this.names.index(store.offset)})${bytes === 1 ? "" : ` * ${bytes}`}`;
    const count = lanes === undefined ? "1" : lanes.partial ? "n" : undefined;
    const exact = value.kind === "round" && value.to === type ? value.operand : value;
    const name = this.names.value(exact);
    const suffix = count === undefined ? "" : "_n";
    const extra = count === undefined ? "" : `, ${count}`;
    const before = `load_${type}${suffix}(${address}${extra})`;
    const code = store.combine === undefined ? name : combine(store.combine, value.type, before, name);
    return `store_${type}${suffix}(${address}, ${code}${extra});`;
  }
}

/** Code that combines two vectors of a type. */
export function combine(kind: "add" | "maximum", type: ScalarType, a: string, b: string): string {
  if (kind === "maximum")
    return type === "f32" ? `max_f(${a}, ${b})` : `select_${letters[type]}(${a} > ${b}, ${a}, ${b})`;
  return type === "i32" ? `(vi)((vu)${a} + (vu)${b})` : `${a} + ${b}`;
}

/** Code that makes one number of a vector's lanes and puts it into every lane. */
export function acrossLanes(kind: "add" | "maximum", type: ScalarType, a: string): string {
  const letter = letters[type];
  const suffix = type === "f32" ? "" : `_${letter}`;
  return `splat_${letter}(${kind === "add" ? "sum" : "max"}_lanes${suffix}(${a}))`;
}

/** Rounded values that nothing but stores of that type reads: the store rounds. */
export function roundedByStores(stores: readonly Store[]): Set<Value> {
  const all = valuesBelow(stores.map((store) => store.value));
  const used = new Set(all.flatMap(operandsOf));
  for (const { value, memory } of stores) if (value.kind !== "round" || value.to !== memory) used.add(value);
  return new Set(all.filter((value) => value.kind === "round" && !used.has(value)));
}
