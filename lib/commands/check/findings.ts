/** How the examinations of `check` tell what they found. */

/**
 * What an examination found. A problem keeps the logger from doing its work or costs readings; a
 * note is something to know.
 */
export interface Finding {
  readonly level: "ok" | "note" | "problem";
  readonly text: string;
}

/** Called with each finding as soon as it is there. */
export type Report = (finding: Finding) => void;
