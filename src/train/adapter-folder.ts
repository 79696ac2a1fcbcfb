import { join } from "node:path";
import { isFile } from "../io/header.js";

/** The PEFT folder that is meant: the one named, or the result of the run whose out folder is named. */
export async function adapterFolder(named: string): Promise<string> {
  const result = join(named, "adapter");
  const own = await isFile(join(named, "adapter_config.json"));
  return !own && (await isFile(join(result, "adapter_config.json"))) ? result : named;
}
