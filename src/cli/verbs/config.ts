import { z } from "zod";
import { configSchema, readConfig, ThimbleError } from "../../index.js";
import { methodSelections } from "../../config/selection.js";
import { findMethod } from "../../methods/compose.js";
import { nearestName } from "../../methods/nearest.js";
import { parseSettings } from "../../methods/settings.js";
import { defineVerb } from "../verb.js";

const actions = ["schema", "validate"];

export const configVerb = defineVerb({
  name: "config",
  summary: "Print the JSON schema of config files, or validate one",
  description: "Editors that are given the schema complete and check config files while they are written.",
  settings: [],
  options: z.strictObject({}),
  positionals: [
    { name: "ACTION", description: "schema (the default) or validate" },
    { name: "FILE", description: "The config file to validate" },
  ],
  examples: [
    { command: "config > thimble.schema.json", purpose: "the schema" },
    { command: "config validate run.yaml", purpose: "check a file; the status is 2 if it is wrong" },
  ],
  run: async ({ terminal, positionals }) => {
    const [action = "schema", path] = positionals;
    if (action === "schema" && path === undefined) {
      const schema = configSchema();
      if (terminal.json) terminal.result(schema);
      else terminal.print(JSON.stringify(schema, undefined, 2));
      return undefined;
    }
    if (action !== "validate" || path === undefined) throw badAction(action);
    const config = await readConfig(path);
    for (const { id, settings } of methodSelections(config)) parseSettings(id, findMethod(id).config, settings);
    terminal.print(`${terminal.colors.green("valid")}  ${path}`);
    terminal.result({ valid: true, config });
    return undefined;
  },
});

function badAction(action: string): ThimbleError {
  const nearest = nearestName(action, actions);
  return new ThimbleError("cli-usage", "thimble config takes no action, schema, or validate with a file", {
    given: action,
    expected: "thimble config [schema], thimble config validate FILE",
    ...(nearest === undefined || actions.includes(action) ? {} : { fix: `Did you mean "${nearest}"?` }),
  });
}
