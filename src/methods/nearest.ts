import { closest, distance } from "fastest-levenshtein";

/** The candidate a person most likely meant by `word`, or undefined where none is near. */
export function nearestName(word: string, candidates: readonly string[]): string | undefined {
  if (candidates.length === 0) return undefined;
  const plain = word.toLowerCase();
  // Names from other tools often carry a prefix or suffix: lora_alpha, use_rslora.
  const contained = candidates.filter((name) => name.length > 2 && plain.split(/[_\-.]/).includes(name.toLowerCase()));
  const best = contained[0] ?? closest(plain, candidates);
  if (contained.length > 0) return best;
  return distance(plain, best.toLowerCase()) <= Math.max(2, Math.floor(plain.length / 2)) ? best : undefined;
}
