/**
 * Word patterns by `tokenizer.ggml.pre`, as the models' own tokenizer.json files state them and llama.cpp names them
 * (`llama-vocab.cpp`). Several patterns are applied one after the other, each splitting what the one before left.
 */
export interface WordPatterns {
  readonly patterns: readonly string[];
  /** Whether a whole word that is in the vocabulary is taken without merging. */
  readonly ignoreMerges?: boolean;
  /** Whether a BOS token is put first when the file does not say. */
  readonly addBos?: boolean;
  /** Unicode normalization that the original tokenizer applies first. */
  readonly normalization?: "NFC";
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const letters = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const symbols = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*";
const spaces = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const llama3 = `${contractions}|${letters}|\\p{N}{1,3}|${symbols}|${spaces}`;
const qwen2 = `${contractions}|${letters}|\\p{N}|${symbols}|${spaces}`;
const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const opening = "[^\\r\\n\\p{L}\\p{N}]?";
const casedSymbols = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*";

/** Words split where lower case turns to upper case; `tail` is what may follow a word. */
function cased(tail: string, digits: string): string {
  const words = `${opening}${upper}*${lower}+${tail}|${opening}${upper}+${lower}*${tail}`;
  return `${words}|${digits}|${casedSymbols}|${spaces}`;
}

const digitsThenGpt2: WordPatterns = { patterns: ["\\p{N}", gpt2] };
const plainGpt2: WordPatterns = { patterns: [gpt2] };
const plainQwen2: WordPatterns = { patterns: [qwen2], normalization: "NFC" };
const plainLlama3: WordPatterns = { patterns: [llama3], ignoreMerges: true, addBos: true };
const deepseek3: WordPatterns = {
  patterns: [
    "\\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+" +
      "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ],
};
const falcon: WordPatterns = { patterns: ["[\\p{P}\\$\\+<=>\\^~\\|`]+", gpt2, "[0-9][0-9][0-9]"] };

const families: readonly (readonly [WordPatterns, readonly string[]])[] = [
  [
    plainGpt2,
    ["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum"],
  ],
  [plainGpt2, ["exaone4", "modern-bert", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de"]],
  [digitsThenGpt2, ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"]],
  [plainLlama3, ["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"]],
  [{ patterns: [llama3] }, ["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"]],
  [plainQwen2, ["qwen2", "deepseek-r1-qwen", "megrez"]],
  [{ patterns: [qwen2] }, ["stablelm2", "hunyuan", "grok-2", "solar-open", "kormo"]],
  [{ patterns: [cased(`${contractions}?`, "\\p{N}{1,3}")] }, ["gpt-4o", "llama4", "kanana2"]],
  [{ patterns: [cased("", "\\p{N}")], ignoreMerges: true, addBos: true }, ["tekken"]],
  [deepseek3, ["deepseek-v3", "hunyuan-dense"]],
  [falcon, ["falcon"]],
  [{ patterns: ["[\\p{P}\\$\\+<=>\\^~\\|]+", gpt2, "\\p{N}+", "[0-9][0-9][0-9]"] }, ["default"]],
];

const byName = new Map(families.flatMap(([patterns, names]) => names.map((name) => [name, patterns] as const)));

/** The patterns for a value of `tokenizer.ggml.pre`, or undefined when it is not known. */
export function wordPatterns(pre: string): WordPatterns | undefined {
  return byName.get(pre);
}

/** All known values of `tokenizer.ggml.pre`. */
export function knownWordPatterns(): string[] {
  return [...byName.keys()].sort();
}
