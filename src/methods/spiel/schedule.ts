import type { SpielConfig } from "./config.js";

/** What a step does about the entries that train. */
export interface Selection {
  /** Its place in a growth window, from 0; undefined outside. */
  readonly window: number | undefined;
  /** Steps of that window. */
  readonly length: number;
  /** Share of a layer's entries that may be replaced after its update; 0 where there is no selection. */
  readonly share: number;
}

/**
 * With c completed steps, S = reselection_steps and a = selection_accumulation_steps: windows open at c = 0 and where
 * (c + 1) mod S = 0, and close, with a selection, where c mod S = a. The first selection may replace everything (unless
 * the settings say less), later ones p0 (1 - c / T), or p0 (1 + cos(π c / T)) / 2.
 */
export function selectionAt(settings: SpielConfig, step: number): Selection {
  const { reselection_steps: between, selection_accumulation_steps: within, total_steps: total = Infinity } = settings;
  const first = step < within;
  const place = first ? step : (step + 1) % between;
  const length = first ? within : within + 1;
  const completed = step + 1;
  const closing = step - place + length;
  const isOpen = place < length && closing <= total;
  const selects = completed % between === within && completed <= total;
  return { window: isOpen ? place : undefined, length, share: selects ? shareAt(settings, completed) : 0 };
}

function shareAt(settings: SpielConfig, completed: number): number {
  const { selection_accumulation_steps: within, initial_reselection_rate: start, total_steps: total } = settings;
  if (completed === within) return settings.first_selection_rate;
  const done = total === undefined ? 0 : completed / total;
  return settings.reselection_rate_policy === "linear"
    ? start * (1 - done)
    : (start * (1 + Math.cos(Math.PI * done))) / 2;
}
