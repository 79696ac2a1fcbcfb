import { checkTrainingBattery } from "../../testing/method-training.js";
import { checkMethodBattery } from "../../testing/methods.js";

const selection = { id: "adalora", settings: { init_r: 3, target_r: 2, alpha: 5, total_step: 9 } };

checkMethodBattery({ title: "AdaLoRA", selection });
checkMethodBattery({ title: "AdaLoRA over transposed weights", selection, model: { transposed: true } });
const dropout = { ...selection, settings: { ...selection.settings, dropout: 0.3 } };
checkMethodBattery({ title: "AdaLoRA with dropout", selection: dropout });

checkTrainingBattery({
  title: "AdaLoRA",
  selection: [{ id: "adalora", settings: { init_r: 6, target_r: 3, alpha: 12, total_step: 5, tinit: 1, tfinal: 1 } }],
  steps: 6,
});
