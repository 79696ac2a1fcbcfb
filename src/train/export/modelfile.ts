import type { Tokenizer } from "../../data/tokenizer.js";
import { endIds } from "../../data/tokenizer.js";

/** ChatML as Ollama's template language has it; Ollama finds other well-known templates in the GGUF file itself. */
const chatMl =
  "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n";

/** What `ollama create NAME -f Modelfile` reads: the model, how conversations are written, where answers end. */
export function modelfile(gguf: string, tokenizer: Tokenizer): string {
  const usesChatMl = tokenizer.chatTemplate?.includes("<|im_start|>") === true;
  const stops = endIds(tokenizer.special).map((id) => `PARAMETER stop ${JSON.stringify(tokenizer.tokenText(id))}`);
  return [`FROM ./${gguf}`, ...(usesChatMl ? [`TEMPLATE """${chatMl}"""`] : []), ...stops, ""].join("\n");
}
