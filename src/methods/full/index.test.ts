import { expect, test } from "vitest";
import { checkMethodBattery } from "../../testing/methods.js";
import { MethodBench } from "../../testing/method-bench.js";
import { toyModel } from "../../testing/toy-model.js";

checkMethodBattery({ title: "full", selection: { id: "full", settings: {} } });

test("every tensor of the checkpoint trains, and nothing is added", async () => {
  const model = toyModel();
  const bench = await MethodBench.create(model, [{ id: "full", settings: {} }]);
  expect(bench.trainedLeaves()).toHaveLength(model.parameters.length);
  expect(bench.composed.adapters).toEqual([]);
  expect(bench.composed.saves).toBe("weights");
  expect(bench.composed.prepares).toBe(false);
});
