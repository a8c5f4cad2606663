/** The findings of `check`. */

/**
 * One finding. A `problem` stops the logger from working or loses readings; a `note` is for
 * information; `ok` confirms that something works. `text` is one or more sentences, with the remedy
 * of a problem.
 */
export interface Finding {
  readonly level: "ok" | "note" | "problem";
  readonly text: string;
}

/** Called with each finding as soon as it is known. */
export type ReportFinding = (finding: Finding) => void;
