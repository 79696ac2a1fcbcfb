import { join } from "node:path";
import type { RunConfig } from "../config/schema.js";
import { defaultSteps } from "../config/schema.js";
import { methodSelections } from "../config/selection.js";
import { ThimbleError } from "../errors.js";
import type { PeftAdapter } from "../io/peft.js";
import { readPeft } from "../io/peft.js";
import type { ComposedMethods, MethodSelection } from "../methods/compose.js";
import { composeMethods, withRunDefaults } from "../methods/compose.js";
import type { ModelDefinition } from "../models/types.js";
import type { Session } from "../session/types.js";
import { adapterFolder } from "./adapter-folder.js";
import { fingerprintFile } from "./fingerprint.js";

/** The methods of a run as one, and the adapter that it starts from. */
export interface RunMethods {
  readonly methods: ComposedMethods;
  readonly selections: readonly MethodSelection[];
  readonly adapter?: PeftAdapter;
  /** Of the adapter's tensors. */
  readonly adapterFingerprint?: string;
  readonly notices: readonly string[];
}

/** Composes the methods that the settings select; with an adapter, its settings stand beneath the given ones. */
export async function composeRun(config: RunConfig, model: ModelDefinition): Promise<RunMethods> {
  const run = { steps: config.steps ?? defaultSteps };
  const selections = methodSelections(config).map((selection) => withRunDefaults(selection, run));
  if (config.adapter === undefined) {
    return { methods: composeMethods(selections, model), selections, notices: [] };
  }
  const folder = await adapterFolder(config.adapter);
  const adapter = await readPeft(folder, model);
  const own = selections.find(({ id }) => id === adapter.selection.id);
  if (own === undefined) {
    throw new ThimbleError("adapter-method", "No method of the run can start from the adapter", {
      where: "adapter",
      given: selections.map(({ id }) => id).join(", "),
      expected: `--method ${adapter.selection.id}`,
      fix: `Select ${adapter.selection.id}, or merge the adapter into its base first.`,
    });
  }
  const settled = selections.map((selection) =>
    selection === own ? { id: own.id, settings: { ...adapter.selection.settings, ...own.settings } } : selection,
  );
  const methods = composeMethods(settled, model);
  checkFit(methods, adapter, folder);
  return {
    methods,
    selections: settled,
    adapter,
    adapterFingerprint: await fingerprintFile(join(folder, "adapter_model.safetensors")),
    notices: adapter.warnings,
  };
}

/** An adapter alone, as what evaluation and generation run: the settings of a training run do not matter. */
export async function composeAdapter(named: string, model: ModelDefinition): Promise<RunMethods> {
  const folder = await adapterFolder(named);
  const adapter = await readPeft(folder, model);
  const selections = [{ id: adapter.selection.id, settings: { ...adapter.selection.settings, dropout: 0 } }];
  const methods = composeMethods(selections, model);
  checkFit(methods, adapter, folder);
  return { methods, selections, adapter, notices: adapter.warnings };
}

/** Every tensor that the methods train must be in the adapter, and of its size: settings may not contradict it. */
function checkFit({ adapters }: ComposedMethods, { tensors }: PeftAdapter, folder: string): void {
  const wrong = adapters.find(({ name, shape }) => tensors.get(name)?.length !== shape.reduce((a, b) => a * b, 1));
  const strange = [...tensors.keys()].find((name) => !adapters.some((tensor) => tensor.name === name));
  if (wrong === undefined && strange === undefined) return;
  throw new ThimbleError("adapter-settings", "The method's settings do not fit the adapter that it starts from", {
    where: folder,
    given:
      wrong === undefined
        ? `${strange ?? ""}, which the method does not train`
        : `${wrong.name}, missing or of another size`,
    fix: "Leave the method's rank and targets to the adapter.",
  });
}

/** Puts an adapter's values into a loaded session. */
export function setAdapter(session: Pick<Session, "bytes">, { tensors }: PeftAdapter): void {
  for (const [name, values] of tensors) {
    const bytes = session.bytes(name);
    bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
}
