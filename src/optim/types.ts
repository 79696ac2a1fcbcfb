import type { DType } from "../ir/dtype.js";
import type { Graph, Node } from "../ir/node.js";
import type { Assignment } from "../ir/program.js";
import type { Shape } from "../ir/shape.js";

/** A trained tensor as it is stored. */
export interface ParameterType {
  readonly shape: Shape;
  readonly dtype: DType;
}

/** A tensor that an optimizer keeps for one parameter from step to step. */
export interface StateSpec {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: DType;
  /** What it holds before the first step: zeros, or the parameter's own value. */
  readonly initial: 0 | "parameter";
}

/** Where the bits of stochastic rounding come from; streams `stream` to `stream + 1` of the step are used. */
export interface RandomSource {
  readonly key: { readonly low: Node; readonly high: Node };
  /** Optimizer step, u32 []. */
  readonly step: Node;
  /** A number, or a u32 [] leaf, so that the updates of equal parameters are one kernel. */
  readonly stream: number | Node;
}

export interface UpdateArguments {
  /** The parameter before the step: f32, or bf16 where it is stored so. */
  readonly parameter: Node;
  /** Its gradient, f32, after clipping. */
  readonly gradient: Node;
  /** The states named by {@link Optimizer.states}. */
  readonly states: Readonly<Record<string, Node>>;
  /** Learning rate of this parameter at this step, f32 []. */
  readonly rate: Node;
  /** The runtime scalars named by {@link Optimizer.scalars}, f32 [] each. */
  readonly scalars: Readonly<Record<string, Node>>;
  /** Whether weight decay applies to it. */
  readonly decay: boolean;
  /** Needed where the optimizer `rounds` this parameter. */
  readonly random?: RandomSource;
  /** Changes what the rule made before it is stored. */
  readonly revise?: (made: RuleResult) => RuleResult;
}

/** What a rule made, in f32: the parameter and the states of its shape, and whatever else it keeps. */
export interface RuleResult {
  readonly value: Node;
  readonly states: Readonly<Record<string, Node>>;
}

export interface UpdateResult {
  /** The parameter after the step, of its stored type. */
  readonly value: Node;
  readonly states: Readonly<Record<string, Node>>;
  /** What other persistent tensors become along with it. */
  readonly also?: readonly Assignment[];
}

/** Where the entries of a tensor [K] stand: places in a matrix, which change while the run goes on. */
export interface EntrySupport {
  readonly rows: number;
  readonly columns: number;
  /** i32 [K], row * columns + column, in a graph. */
  readonly places: (graph: Graph) => Node;
}

/** What is known of the gradients of entries before they train, f32 of one shape. */
export interface EntryHistory {
  readonly sum: Node;
  readonly squares: Node;
  /** How many gradients these are of, f32 []. */
  readonly count: Node;
}

/** A rule for entries of a matrix, each with an age of its own. */
export interface EntryRule {
  rule(support: EntrySupport): Optimizer;
  /** States of an entry that is new, by name: those of the rule that have the parameter's shape. */
  seed(history: EntryHistory): Readonly<Record<string, Node>>;
}

/** An update rule with its settings: graph builders only, no tensors. */
export interface Optimizer {
  readonly id: string;
  /** Factor of the weight decay, for rules made of this one that apply it themselves. */
  readonly weightDecay: number;
  states(parameter: ParameterType): readonly StateSpec[];
  /**
   * What depends on the step count alone, t = 1 at the first step: computed in f64 on the host, and given to the
   * program as runtime scalars.
   */
  scalars(step: number): Readonly<Record<string, number>>;
  /** Whether updating this parameter draws random bits. */
  rounds(parameter: ParameterType): boolean;
  update(args: UpdateArguments): UpdateResult;
  /** The same rule with its states stored in another way; refused where they are quantised already. */
  withStates(settings: StateSettings): Optimizer;
  /** The same rule for entries of a matrix that come and go; absent where it has none. */
  readonly entries?: EntryRule;
}

/** How states are stored. */
export interface StateSettings {
  readonly states: "f32" | "bf16" | "8bit" | "fp8";
  readonly state_expansion: boolean;
  readonly state_power_steps: number;
  readonly state_statistics: "f32" | "bf16";
}
