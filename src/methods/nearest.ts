import { distance } from "fastest-levenshtein";

/** The candidate a person most likely meant by `word`, or undefined where none is near. */
export function nearestName(word: string, candidates: readonly string[]): string | undefined {
  if (candidates.length === 0) return undefined;
  const plain = word.toLowerCase();
  // Names from other tools often carry a prefix or suffix: lora_alpha, use_rslora.
  const contained = candidates.filter((name) => name.length > 2 && plain.split(/[_\-.]/).includes(name.toLowerCase()));
  if (contained[0] !== undefined) return contained[0];
  // Of names that are equally near, the one that begins alike: first letters are seldom mistyped.
  const alike = (name: string): number => (name.toLowerCase().startsWith(plain.slice(0, 1)) ? 0 : 0.5);
  const farness = (name: string): number => distance(plain, name.toLowerCase()) + alike(name);
  const best = candidates.reduce((nearest, name) => (farness(name) < farness(nearest) ? name : nearest));
  return distance(plain, best.toLowerCase()) <= Math.max(2, Math.floor(plain.length / 2)) ? best : undefined;
}
