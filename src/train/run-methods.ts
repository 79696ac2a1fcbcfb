import { join } from "node:path";
import type { RunConfig } from "../config/schema.js";
import { defaultSteps } from "../config/schema.js";
import { methodSelections } from "../config/selection.js";
import type { Tokenizer } from "../data/tokenizer.js";
import { ThimbleError } from "../errors.js";
import type { SavedAdapter } from "../io/adapter.js";
import { readAdapter } from "../io/adapter.js";
import type { ComposedMethods, MethodSelection } from "../methods/compose.js";
import { composeMethods, findMethod, withRunDefaults } from "../methods/compose.js";
import { bf16Bits } from "../ir/dtype.js";
import type { ModelDefinition } from "../models/types.js";
import type { Session } from "../session/types.js";
import { adapterFolder } from "./adapter-folder.js";
import { fingerprintFile } from "./fingerprint.js";

/** The methods of a run as one, and the adapter that it starts from. */
export interface RunMethods {
  readonly methods: ComposedMethods;
  readonly selections: readonly MethodSelection[];
  readonly adapter?: SavedAdapter;
  /** Of the adapter's tensors. */
  readonly adapterFingerprint?: string;
  readonly notices: readonly string[];
}

/**
 * Composes the methods that the settings select; with an adapter, its settings stand beneath the given ones. Without a
 * tokenizer, settings that are texts stay as they are, which changes values and no sizes.
 */
export async function composeRun(
  config: RunConfig,
  model: ModelDefinition,
  loadTokenizer?: () => Promise<Tokenizer>,
): Promise<RunMethods> {
  const run = { steps: config.steps ?? defaultSteps, length: config.seq };
  const selections: MethodSelection[] = [];
  for (const selection of methodSelections(config)) {
    selections.push(await withTextsAsIds(withRunDefaults(selection, run), loadTokenizer));
  }
  if (config.adapter === undefined) {
    return { methods: composeMethods(selections, model), selections, notices: [] };
  }
  const folder = await adapterFolder(config.adapter);
  const adapter = await readAdapter(folder, model);
  const missing = adapter.selections.find(({ id }) => selections.every((own) => own.id !== id));
  if (missing !== undefined) {
    throw new ThimbleError("adapter-method", "No method of the run can start from the adapter", {
      where: "adapter",
      given: selections.map(({ id }) => id).join(", "),
      expected: `--method ${missing.id}`,
      fix: `Select ${missing.id}, or merge the adapter into its base first.`,
    });
  }
  const settingsOf = (id: string): MethodSelection["settings"] =>
    adapter.selections.find((one) => one.id === id)?.settings ?? {};
  const settled = selections.map(({ id, settings }) => ({ id, settings: { ...settingsOf(id), ...settings } }));
  const methods = composeMethods(settled, model);
  checkFit(methods, adapter, folder, model);
  return {
    methods,
    selections: settled,
    adapter,
    adapterFingerprint: await fingerprintFile(join(folder, "adapter_model.safetensors")),
    notices: adapter.warnings,
  };
}

/** Settings that are texts, with their token ids beside them. */
async function withTextsAsIds(
  { id, settings }: MethodSelection,
  loadTokenizer: (() => Promise<Tokenizer>) | undefined,
): Promise<MethodSelection> {
  const ids: Record<string, readonly number[]> = {};
  for (const [name, target] of Object.entries(findMethod(id).textSettings ?? {})) {
    const text = settings[name];
    if (typeof text !== "string" || settings[target] !== undefined || loadTokenizer === undefined) continue;
    ids[target] = (await loadTokenizer()).encode(text, { addSpecial: false });
  }
  return { id, settings: { ...settings, ...ids } };
}

/** An adapter alone, as what evaluation and generation run: the settings of a training run do not matter. */
export async function composeAdapter(named: string, model: ModelDefinition): Promise<RunMethods> {
  const folder = await adapterFolder(named);
  const adapter = await readAdapter(folder, model);
  const { selections } = adapter;
  const methods = composeMethods(selections, model);
  checkFit(methods, adapter, folder, model);
  return { methods, selections, adapter, notices: adapter.warnings };
}

/** Every tensor that the methods train must be in the adapter, and of its size: settings may not contradict it. */
function checkFit(
  { adapters, integers, methods }: ComposedMethods,
  { tensors, integers: given }: SavedAdapter,
  folder: string,
  { task }: ModelDefinition,
): void {
  const trained = adapters.find(({ name, shape }) => tensors.get(name)?.length !== shape.reduce((a, b) => a * b, 1));
  const wrong = trained?.name ?? integers.find((name) => !given.has(name));
  const known = new Set([...adapters.map(({ name }) => name), ...integers, ...(task?.head ?? [])]);
  const strange = [...tensors.keys(), ...given.keys()].find((name) => !known.has(name));
  if (wrong === undefined && strange === undefined) {
    for (const method of methods) method.checkIntegers?.(given);
    return;
  }
  throw new ThimbleError("adapter-settings", "The method's settings do not fit the adapter that it starts from", {
    where: folder,
    given:
      wrong === undefined
        ? `${strange ?? ""}, which the method does not train`
        : `${wrong}, missing or of another size`,
    fix: "Leave the method's rank and targets to the adapter.",
  });
}

/** Puts an adapter's values into a loaded session. */
export function setAdapter(session: Pick<Session, "bytes" | "tensors">, { tensors, integers }: SavedAdapter): void {
  const halves = new Set(session.tensors.filter(({ dtype }) => dtype === "bf16").map(({ name }) => name));
  for (const [name, given] of [...tensors, ...integers]) {
    const values = halves.has(name) ? Uint16Array.from(given, bf16Bits) : given;
    const bytes = session.bytes(name);
    if (bytes.byteLength !== values.byteLength) {
      throw new ThimbleError("adapter-settings", "The method's settings do not fit the adapter that it starts from", {
        where: name,
        given: `${values.byteLength} bytes`,
        expected: `${bytes.byteLength} bytes`,
        fix: "Leave the method's settings to the adapter.",
      });
    }
    bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
}
